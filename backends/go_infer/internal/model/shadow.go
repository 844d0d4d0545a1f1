package model

import (
	"context"
	"math/rand/v2"
	"time"
)

// Outcome is what became of a copy for a shadow.
type Outcome int

// The outcomes.
const (
	Answered Outcome = iota
	Failed           // the shadow refused it, or has no such signature
	Skipped          // too many copies were being answered, or no version could
)

// shadowPatience is how long a copy may take; nobody waits for it.
const shadowPatience = 30 * time.Second

// Shadow is another version that gets copies of some requests, whose answers nobody sees. The inputs are shared and not copied, a copy
// begins when its original is answered, and what does not fit in is left out: a shadow takes CPU from the others but never their time
// in a queue.
type Shadow struct {
	percent int
	places  chan struct{}
	acquire func(but *Model) (*Model, func())
	told    func(Outcome)
}

// NewShadow makes a shadow. acquire finds and holds the version, unless it is the one that has answered; nil if there is none.
func NewShadow(percent, atATime int, acquire func(but *Model) (*Model, func()), told func(Outcome)) *Shadow {
	return &Shadow{percent, make(chan struct{}, atATime), acquire, told}
}

// Mirror says to which shadow the model's requests go from now on; nil: none.
func (m *Model) Mirror(shadow *Shadow) { m.shadow.Store(shadow) }

// copy gives the shadow a request that signature has answered, or leaves it out. It does not wait.
func (s *Shadow) copy(signature *Servable, request *Request) {
	if s.percent < 100 && rand.IntN(100) >= s.percent {
		return
	}
	other, release := s.acquire(signature.Model)
	if other == nil {
		return
	}
	select {
	case s.places <- struct{}{}:
	default:
		release()
		s.told(Skipped)
		return
	}
	twin := request.twin()
	go func() {
		defer func() { <-s.places }()
		defer release()
		defer twin.Release()
		ctx, cancel := context.WithTimeout(context.Background(), shadowPatience)
		defer cancel()
		same, err := other.Signature(signature.Name)
		if err == nil && !same.accepts(signature.Signature) {
			s.told(Failed)
			return
		}
		if err == nil {
			err = same.Run(ctx, twin)
		}
		if err != nil {
			s.told(Failed)
			return
		}
		s.told(Answered)
	}()
}

// accepts says whether a request for the other signature is one for this, too.
func (s *Signature) accepts(other *Signature) bool {
	if len(s.Inputs) != len(other.Inputs) {
		return false
	}
	for i := range s.Inputs {
		if s.Inputs[i].Alias != other.Inputs[i].Alias || s.Inputs[i].Type != other.Inputs[i].Type {
			return false
		}
	}
	return true
}

// twin is a request with the same inputs, in the same memory, and outputs of its own.
func (r *Request) twin() *Request {
	r.Retain()
	t := NewRequest(len(r.In))
	t.Rows, t.twinOf = r.Rows, r
	for i := range r.In {
		dims := append(t.In[i].Dims[:0], r.In[i].Dims...)
		t.In[i] = r.In[i]
		t.In[i].Dims = dims
	}
	return t
}

// untwin leaves the inputs to the request that they belong to.
func (r *Request) untwin() {
	for i := range r.In {
		r.In[i].Slab, r.In[i].Strings = nil, nil
	}
	r.twinOf.Release()
	r.twinOf = nil
}
