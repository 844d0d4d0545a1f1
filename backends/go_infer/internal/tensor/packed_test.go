package tensor

import (
	"bytes"
	"testing"
)

func TestStringsComeOutOfPackedMemoryAsTheyWentIn(t *testing.T) {
	pool := NewPool()
	defer pool.Drain()
	for _, c := range []struct {
		name     string
		strings  [][]byte
		from, to int
	}{
		{"all", [][]byte{[]byte("a"), []byte("bc"), []byte("\x00\xff")}, 0, 3},
		{"some in the middle", [][]byte{[]byte("first"), []byte("second"), []byte("third"), []byte("fourth")}, 1, 3},
		{"empty ones", [][]byte{nil, []byte("x"), nil, nil}, 0, 4},
		{"only empty ones", [][]byte{nil, nil}, 1, 2},
		{"none of none", nil, 0, 0},
		{"none of some", [][]byte{[]byte("x")}, 1, 1},
		{"a large one", [][]byte{bytes.Repeat([]byte("large"), 10000)}, 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := len(c.strings)
			size := PackedSize(n, Content(c.strings))
			slab, err := pool.Get(size)
			if err != nil {
				t.Fatal(err)
			}
			packer := NewPacker(slab.Bytes(size), n)
			for i := range c.strings {
				packer.Add(c.strings[i : i+1])
			}
			got := make([][]byte, c.to-c.from)
			Unpack(got, slab.Bytes(size), c.from, c.to, n)
			clear(slab.Bytes(size)) // what came out is its own
			slab.Free()
			for i, s := range got {
				if !bytes.Equal(s, c.strings[c.from+i]) {
					t.Errorf("string %d is %q, want %q", c.from+i, s, c.strings[c.from+i])
				}
			}
		})
	}
	if pool.Live() != 0 {
		t.Errorf("%d slabs leaked", pool.Live())
	}
}
