package model

import (
	"sync"
	"sync/atomic"
	"time"

	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/tensor"
)

// Request is the tensors of one client's request: inputs filled by an API, outputs by Run.
//
// Invariants: reference counted, because a Run may still read the inputs after the client has left; whoever releases last frees the
// slabs. Outputs may be read after Signature.Run returned nil, until the caller's own Release.
type Request struct {
	Rows  int
	Class batch.Class    // how urgent it is
	Begun time.Time      // when it was given to Run
	In    []tensor.Value // in the order of the signature's inputs
	Out   []tensor.Value // in the order of its outputs

	holders atomic.Int32
	twinOf  *Request // whose inputs these are, if they are not its own

	servable *Servable // of one that was started
	tell     func(err error) (after func())

	mu sync.Mutex // parts of one request may finish in different slots
}

var requests = sync.Pool{New: func() any { return &Request{} }}

// NewRequest makes an empty request with one holder: the caller.
func NewRequest(inputs int) *Request {
	r := requests.Get().(*Request)
	r.holders.Store(1)
	r.Rows = 0
	r.Class = batch.Default
	if cap(r.In) < inputs {
		r.In = make([]tensor.Value, inputs)
	}
	r.In = r.In[:inputs]
	return r
}

// Retain adds a holder.
func (r *Request) Retain() { r.holders.Add(1) }

// Release removes a holder; the last one frees the memory.
func (r *Request) Release() {
	if r.holders.Add(-1) > 0 {
		return
	}
	if r.twinOf != nil {
		r.untwin()
	}
	for _, side := range [][]tensor.Value{r.In, r.Out} {
		for i := range side {
			if side[i].Slab != nil {
				side[i].Slab.Free()
				side[i].Slab = nil
			}
			side[i].Dims = side[i].Dims[:0]
			side[i].Strings = nil
		}
	}
	r.Out = r.Out[:0]
	requests.Put(r)
}

// SetInput gives input i its shape and memory to be filled; dims are copied.
func (r *Request) SetInput(i int, pool *tensor.Pool, dtype tensor.DType, dims ...int64) (*tensor.Value, error) {
	value := &r.In[i]
	value.Type = dtype
	value.Dims = append(value.Dims[:0], dims...)
	slab, err := pool.Get(value.Size())
	if err != nil {
		return nil, err
	}
	if value.Slab != nil {
		value.Slab.Free()
	}
	value.Slab, value.Strings = slab, nil
	return value, nil
}

// SetStrings makes input i a tensor of strings with the shape dims, which must have as many elements; both are kept, dims as a copy.
func (r *Request) SetStrings(i int, strings [][]byte, dims ...int64) error {
	if n := tensor.Elements(dims); n != int64(len(strings)) {
		return status.Errorf(status.InvalidArgument, "%d strings for a tensor of shape %s", len(strings), tensor.ShapeText(dims, true))
	}
	value := &r.In[i]
	if value.Slab != nil {
		value.Slab.Free()
		value.Slab = nil
	}
	value.Type = tensor.String
	value.Dims = append(value.Dims[:0], dims...)
	value.Strings = strings
	return nil
}
