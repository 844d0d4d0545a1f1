package tensor

import "testing"

func TestSlabsAreAlignedReusedAndCounted(t *testing.T) {
	pool := NewPool()
	for _, size := range []int{0, 1, 63, 64, 65, 256, 5000, 1 << 20} {
		slab, err := pool.Get(size)
		if err != nil {
			t.Fatal(err)
		}
		if uintptr(slab.Pointer())%Alignment != 0 {
			t.Errorf("%d bytes: not aligned to %d", size, Alignment)
		}
		clear(slab.Bytes(size)) // every byte is ours to write
		if pool.Live() != 1 {
			t.Errorf("%d live slabs, want 1", pool.Live())
		}
		slab.Free()
		again, err := pool.Get(size)
		if err != nil || again != slab {
			t.Errorf("%d bytes: a freed slab was not used again", size)
		}
		again.Free()
	}
	if pool.Live() != 0 {
		t.Errorf("%d live slabs at the end", pool.Live())
	}
	pool.Drain()
	if _, err := pool.Get(1 << 40); err == nil {
		t.Error("a slab of 1 TB was promised")
	}
}
