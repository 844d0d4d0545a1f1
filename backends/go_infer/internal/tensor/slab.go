package tensor

/*
#include <stdlib.h>

static void *sg_aligned(size_t bytes) {
	void *memory = NULL;
	return posix_memalign(&memory, 64, bytes) == 0 ? memory : NULL;
}
*/
import "C"

import (
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
	"unsafe"
)

const (
	// Alignment is what TensorFlow (Eigen) wants; memory aligned to less is copied by TF_NewTensor.
	Alignment = 64
	// smallest slab, as a power of two; one cache line.
	smallest = 6
	// largest slab: 2^34 bytes; a request that large is a mistake long before.
	largest = 34
	// keepBytes is how much idle memory one size class holds on to; more is given back at once.
	keepBytes = 8 << 20
)

// Slab is a piece of C memory, aligned to Alignment. It is owned by exactly one holder, who calls Free once.
type Slab struct {
	pool   *Pool
	memory unsafe.Pointer
	class  int
}

// Pool hands out slabs in power-of-two size classes and keeps a few idle ones of each.
//
// Invariants: no finalizers and no garbage collector in the game: what was handed out stays until Free, and Live counts it.
// Memory is not cleared between holders.
type Pool struct {
	live    atomic.Int64
	classes [largest + 1]struct {
		sync.Mutex
		idle []*Slab
	}
}

// NewPool makes an empty pool.
func NewPool() *Pool { return &Pool{} }

// Get returns a slab of at least size bytes; nil if the machine has no memory for it.
func (p *Pool) Get(size int) (*Slab, error) {
	class := max(smallest, bits.Len(uint(max(size, 1)-1)))
	if class > largest {
		return nil, fmt.Errorf("a tensor of %d bytes is larger than the %d that can be held", size, 1<<largest)
	}
	shelf := &p.classes[class]
	shelf.Lock()
	if last := len(shelf.idle) - 1; last >= 0 {
		slab := shelf.idle[last]
		shelf.idle = shelf.idle[:last]
		shelf.Unlock()
		p.live.Add(1)
		return slab, nil
	}
	shelf.Unlock()
	memory := C.sg_aligned(C.size_t(1) << class)
	if memory == nil {
		return nil, fmt.Errorf("out of memory: no %d bytes for a tensor", 1<<class)
	}
	p.live.Add(1)
	return &Slab{pool: p, memory: memory, class: class}, nil
}

// Free gives the slab back. The holder must not touch it afterwards.
func (s *Slab) Free() {
	p := s.pool
	p.live.Add(-1)
	shelf := &p.classes[s.class]
	shelf.Lock()
	if (len(shelf.idle)+1)<<s.class <= max(keepBytes, 1<<s.class) {
		shelf.idle = append(shelf.idle, s)
		shelf.Unlock()
		return
	}
	shelf.Unlock()
	C.free(s.memory)
}

// Live is the number of slabs handed out and not yet freed.
func (p *Pool) Live() int64 { return p.live.Load() }

// Drain frees every idle slab; for tests and for the end of the process.
func (p *Pool) Drain() {
	for i := range p.classes {
		shelf := &p.classes[i]
		shelf.Lock()
		for _, slab := range shelf.idle {
			C.free(slab.memory)
		}
		shelf.idle = nil
		shelf.Unlock()
	}
}

// Pointer is the slab's first byte.
func (s *Slab) Pointer() unsafe.Pointer { return s.memory }

// Bytes is the slab's first n bytes, in place.
func (s *Slab) Bytes(n int) []byte { return unsafe.Slice((*byte)(s.memory), n) }

// View is the slab's first n elements of type T, in place.
func View[T any](s *Slab, n int) []T { return unsafe.Slice((*T)(s.memory), n) }

// Cast reinterprets bytes that came from a slab or from TensorFlow (both aligned) as elements of type T.
func Cast[T any](bytes []byte) []T {
	var element T
	if len(bytes) == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(bytes))), len(bytes)/int(unsafe.Sizeof(element)))
}
