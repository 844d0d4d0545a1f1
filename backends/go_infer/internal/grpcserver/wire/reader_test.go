package wire

import (
	"bytes"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// cut lays data out in buffers of so many bytes each, as HTTP/2 frames do.
func cut(data []byte, size int) mem.BufferSlice {
	var all mem.BufferSlice
	for len(data) > 0 {
		n := min(size, len(data))
		all = append(all, mem.SliceBuffer(data[:n]))
		data = data[n:]
	}
	return all
}

// message has a field of every kind, two of them messages.
func message() []byte {
	var m []byte
	m = protowire.AppendVarint(protowire.AppendTag(m, 1, protowire.VarintType), 1<<63|5)
	m = protowire.AppendFixed32(protowire.AppendTag(m, 2, protowire.Fixed32Type), 0xdeadbeef)
	m = protowire.AppendFixed64(protowire.AppendTag(m, 3, protowire.Fixed64Type), 0x0123456789abcdef)
	m = protowire.AppendBytes(protowire.AppendTag(m, 4, protowire.BytesType), []byte("name of something"))
	inner := protowire.AppendVarint(protowire.AppendTag(nil, 7, protowire.VarintType), 300)
	m = protowire.AppendBytes(protowire.AppendTag(m, 5, protowire.BytesType), inner)
	return protowire.AppendBytes(protowire.AppendTag(m, 1000, protowire.BytesType), bytes.Repeat([]byte{9}, 100))
}

func TestAMessageReadsTheSameHoweverItIsCut(t *testing.T) {
	whole := message()
	for size := 1; size <= len(whole); size++ {
		r := Over(cut(whole, size))
		seen := 0
		for number, kind := r.Next(); number != 0; number, kind = r.Next() {
			seen++
			switch number {
			case 1:
				if got := r.Varint(); got != 1<<63|5 {
					t.Errorf("cut at %d: varint %d", size, got)
				}
			case 2:
				if got := r.Fixed32(); got != 0xdeadbeef {
					t.Errorf("cut at %d: fixed32 %x", size, got)
				}
			case 3:
				if got := r.Fixed64(); got != 0x0123456789abcdef {
					t.Errorf("cut at %d: fixed64 %x", size, got)
				}
			case 4:
				if got := r.Text(); string(got) != "name of something" {
					t.Errorf("cut at %d: text %q", size, got)
				}
			case 5:
				inner := r.Message()
				if number, _ := inner.Next(); number != 7 || inner.Varint() != 300 || inner.Len() != 0 || inner.Err() != nil {
					t.Errorf("cut at %d: the inner message is wrong", size)
				}
			default:
				r.Skip(kind)
			}
		}
		if seen != 6 || r.Err() != nil {
			t.Errorf("cut at %d: %d fields, %v", size, seen, r.Err())
		}
	}
}

func TestWhatIsCutShortIsAFault(t *testing.T) {
	whole := message()
	ends := map[int]bool{0: true} // where a field ends, so does a message
	r := Of(whole)
	for number, kind := r.Next(); number != 0; number, kind = r.Next() {
		r.Skip(kind)
		ends[len(whole)-r.Len()] = true
	}
	for length := range whole {
		for size := 1; size < 9; size++ {
			r := Over(cut(whole[:length], size))
			for number, kind := r.Next(); number != 0; number, kind = r.Next() {
				r.Skip(kind)
			}
			if (r.Err() == nil) != ends[length] {
				t.Errorf("%d of %d bytes in pieces of %d: %v", length, len(whole), size, r.Err())
			}
		}
	}
}

func TestAFaultEndsTheMessage(t *testing.T) {
	for name, data := range map[string][]byte{
		"group":              {1<<3 | 3, 1<<3 | 4},
		"field 0":            {0, 1},
		"wire type 7":        {1<<3 | 7},
		"length beyond":      {1<<3 | 2, 5, 1},
		"huge length":        append(protowire.AppendVarint([]byte{1<<3 | 2}, 1<<63), 1),
		"varint of 11 bytes": append([]byte{1 << 3}, bytes.Repeat([]byte{0x80}, 11)...),
		"varint too large":   append(append([]byte{1 << 3}, bytes.Repeat([]byte{0xff}, 9)...), 2),
		"huge field number":  protowire.AppendVarint(nil, 1<<40),
	} {
		for _, size := range []int{1, 64} {
			r := Over(cut(data, size))
			for number, kind := r.Next(); number != 0; number, kind = r.Next() {
				r.Skip(kind)
			}
			if r.Err() == nil || r.Len() != 0 || r.Varint() != 0 || r.Text() != nil {
				t.Errorf("%s in pieces of %d: no fault, or something after it", name, size)
			}
		}
	}
}

func TestTextInOneBufferIsNotCopied(t *testing.T) {
	data := protowire.AppendBytes([]byte{1<<3 | 2}, []byte("label"))
	r := Of(data)
	r.Next()
	if text := r.Text(); &text[0] != &data[2] || cap(text) != 5 {
		t.Error("the text is a copy, or can grow into what follows it")
	}
}
