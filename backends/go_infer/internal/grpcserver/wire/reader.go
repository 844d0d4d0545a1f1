// Package wire reads protobuf messages where they lie: in the buffers that gRPC received, without joining them first.
//
// Why it exists: a message of tensors is a small frame of fields around large runs of bytes, and grpc-go hands a received message over
// as a list of buffers, one per HTTP/2 frame (16 KiB each). A generated message would need them joined (a copy), would copy every run
// into Go memory (a second), and only then could the run be copied to where TensorFlow reads it (a third). Here a run is a position,
// and CopyTo is the only copy.
//
// Invariants: any bytes are safe; a Reader never goes beyond its message; after the first fault everything it returns is zero and Err
// says so. A Reader is a value: a copy of it reads the same bytes again. It borrows the buffers and must not outlive them.
//
// Source: the protobuf encoding guide. Groups are refused: no message read here has them.
package wire

import (
	"encoding/binary"
	"errors"
	"io"

	"google.golang.org/grpc/mem"
)

// ErrMalformed says that bytes are not the protobuf message they should be.
var ErrMalformed = errors.New("the message is cut short or not a protobuf")

// Kind is a wire type.
type Kind uint8

// The wire types.
const (
	Varint  Kind = 0
	Fixed64 Kind = 1
	Bytes   Kind = 2
	Fixed32 Kind = 5
)

// Reader is a position in a message.
type Reader struct {
	chunk []byte          // what is left of the present buffer; may reach beyond the message
	rest  mem.BufferSlice // the buffers after it
	left  int             // bytes of the message from here on
	bad   bool
}

// Over reads a whole received message.
func Over(data mem.BufferSlice) Reader { return Reader{rest: data, left: data.Len()} }

// Of reads a message that lies in one piece.
func Of(data []byte) Reader { return Reader{chunk: data, left: len(data)} }

// Len is the bytes from here to the end of the message.
func (r *Reader) Len() int { return r.left }

// Err is ErrMalformed if something could not be read.
func (r *Reader) Err() error {
	if r.bad {
		return ErrMalformed
	}
	return nil
}

func (r *Reader) fail() {
	r.bad, r.left, r.chunk, r.rest = true, 0, nil, nil
}

// Next reads the tag of the next field; the number is 0 at the end of the message, or after a fault.
func (r *Reader) Next() (number int, kind Kind) {
	if r.left == 0 {
		return 0, 0
	}
	tag := r.Varint()
	number, kind = int(tag>>3), Kind(tag&7)
	if tag>>3 == 0 || tag>>3 > 1<<29-1 || kind == 3 || kind == 4 || kind > Fixed32 {
		r.fail()
		return 0, 0
	}
	return number, kind
}

// Skip passes over the value of a field.
func (r *Reader) Skip(kind Kind) {
	switch kind {
	case Varint:
		r.Varint()
	case Fixed64:
		r.advance(8)
	case Fixed32:
		r.advance(4)
	default:
		r.advance(r.length())
	}
}

// Varint reads a varint.
func (r *Reader) Varint() uint64 {
	if len(r.chunk) > 0 && r.left > 0 && r.chunk[0] < 0x80 { // most are one byte
		value := uint64(r.chunk[0])
		r.chunk = r.chunk[1:]
		r.left--
		return value
	}
	if min(len(r.chunk), r.left) >= binary.MaxVarintLen64 {
		value, n := binary.Uvarint(r.chunk)
		if n <= 0 {
			r.fail()
			return 0
		}
		r.chunk = r.chunk[n:]
		r.left -= n
		return value
	}
	var value uint64
	for shift := 0; shift < 70; shift += 7 {
		b, ok := r.byte()
		if !ok {
			break
		}
		if shift == 63 && b > 1 {
			break
		}
		value |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return value
		}
	}
	r.fail()
	return 0
}

func (r *Reader) byte() (byte, bool) {
	if r.left == 0 || !r.fill() {
		return 0, false
	}
	b := r.chunk[0]
	r.chunk = r.chunk[1:]
	r.left--
	return b, true
}

// fill goes on to the next buffer if this one is used up.
func (r *Reader) fill() bool {
	for len(r.chunk) == 0 {
		if len(r.rest) == 0 {
			return false
		}
		r.chunk, r.rest = r.rest[0].ReadOnlyData(), r.rest[1:]
	}
	return true
}

// Fixed32 reads four bytes, little-endian.
func (r *Reader) Fixed32() uint32 {
	var four [4]byte
	r.CopyTo(four[:])
	return binary.LittleEndian.Uint32(four[:])
}

// Fixed64 reads eight bytes, little-endian.
func (r *Reader) Fixed64() uint64 {
	var eight [8]byte
	r.CopyTo(eight[:])
	return binary.LittleEndian.Uint64(eight[:])
}

// length reads the length of a length-delimited field.
func (r *Reader) length() int {
	length := r.Varint()
	if length > uint64(r.left) {
		r.fail()
		return 0
	}
	return int(length)
}

// Message is a length-delimited field as a message (or a run of packed values, or bytes) of its own; the reader itself goes on after it.
func (r *Reader) Message() Reader {
	length := r.length()
	inner := *r
	inner.left = length
	r.advance(length)
	return inner
}

// advance passes over n bytes.
func (r *Reader) advance(n int) {
	if n > r.left {
		r.fail()
		return
	}
	r.left -= n
	for n > 0 {
		if !r.fill() {
			r.fail()
			return
		}
		step := min(n, len(r.chunk))
		r.chunk = r.chunk[step:]
		n -= step
	}
}

// CopyTo copies the next len(to) bytes; a message that has not that many is a fault.
func (r *Reader) CopyTo(to []byte) {
	if len(to) > r.left {
		clear(to)
		r.fail()
		return
	}
	r.left -= len(to)
	for len(to) > 0 {
		if !r.fill() {
			r.fail()
			return
		}
		n := copy(to, r.chunk)
		to, r.chunk = to[n:], r.chunk[n:]
	}
}

// Read is CopyTo for io.Reader.
func (r *Reader) Read(to []byte) (int, error) {
	if r.left == 0 && len(to) > 0 {
		return 0, io.EOF
	}
	n := min(len(to), r.left)
	r.CopyTo(to[:n])
	return n, r.Err()
}

// Text is a length-delimited field in one piece: where it lies if it lies in one buffer, else a copy. It is valid as long as the
// buffers are.
func (r *Reader) Text() []byte {
	inner := r.Message()
	return inner.Rest()
}

// Rest is what is left of the message in one piece, as Text is.
func (r *Reader) Rest() []byte {
	if r.left == 0 || !r.fill() {
		return nil
	}
	if r.left <= len(r.chunk) {
		text := r.chunk[:r.left:r.left]
		r.chunk, r.left = r.chunk[r.left:], 0
		return text
	}
	text := make([]byte, r.left)
	r.CopyTo(text)
	return text
}
