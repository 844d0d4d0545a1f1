package tensor

import "bytes"

// Packed strings are how the elements of a string tensor cross to and from C: n offsets (uint64) of where each ends, counted from
// the first byte after the offsets, then the bytes of all. The memory must be aligned to 8.

// offset is the size of one offset.
const offset = 8

// Packer writes strings one by one into memory of PackedSize.
type Packer struct {
	ends    []uint64
	content []byte
	written int
	at      int
}

// PackedSize is the memory that n strings of so many bytes altogether need.
func PackedSize(n, content int) int { return n*offset + content }

// Content is the number of bytes in strings.
func Content(strings [][]byte) (n int) {
	for _, s := range strings {
		n += len(s)
	}
	return n
}

// NewPacker begins to pack n strings into memory.
func NewPacker(memory []byte, n int) Packer {
	return Packer{ends: Cast[uint64](memory[:n*offset]), content: memory[n*offset:]}
}

// Add packs strings after those that were added before.
func (p *Packer) Add(strings [][]byte) {
	for _, s := range strings {
		p.written += copy(p.content[p.written:], s)
		p.ends[p.at] = uint64(p.written)
		p.at++
	}
}

// PackedContent is the number of bytes in n packed strings.
func PackedContent(packed []byte, n int) int {
	if n == 0 {
		return 0
	}
	return int(Cast[uint64](packed[:n*offset])[n-1])
}

// Unpack copies strings [from, to) of n packed ones into Go memory of their own: one piece, however many they are.
func Unpack(strings [][]byte, packed []byte, from, to, n int) {
	if from == to {
		return
	}
	ends, content := Cast[uint64](packed[:n*offset]), packed[n*offset:]
	base := uint64(0)
	if from > 0 {
		base = ends[from-1]
	}
	own := bytes.Clone(content[base:ends[to-1]])
	begin := uint64(0)
	for i, end := range ends[from:to] {
		end -= base
		strings[i] = own[begin:end:end]
		begin = end
	}
}
