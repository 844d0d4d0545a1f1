package model

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"sluicegate/go_infer/internal/panics"
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

// copy gives the shadow a request that signature has answered, or leaves it out. It does not wait, and whatever it does wrong costs the
// request nothing.
func (s *Shadow) copy(signature *Servable, request *Request) {
	if s.percent < 100 && rand.IntN(100) >= s.percent {
		return
	}
	c := &copied{shadow: s}
	handed := false
	defer func() {
		if handed {
			return
		}
		c.free()
		if reason := recover(); reason != nil {
			_ = panics.Stopped(nil, "a copy for a shadow", reason)
		}
	}()
	c.other, c.release = s.acquire(signature.Model)
	if c.other == nil {
		return
	}
	select {
	case s.places <- struct{}{}:
		c.placed = true
	default:
		s.told(Skipped)
		return
	}
	c.twin = request.twin()
	handed = true
	go c.run(signature)
}

// copied is one copy, and what it holds.
type copied struct {
	shadow  *Shadow
	other   *Model
	release func()
	placed  bool
	twin    *Request
}

func (c *copied) free() {
	if c.twin != nil {
		c.twin.Release()
	}
	if c.release != nil {
		c.release()
	}
	if c.placed {
		<-c.shadow.places
	}
}

func (c *copied) run(signature *Servable) {
	defer c.free()
	outcome := Answered
	if panics.Guard(nil, "a copy for a shadow", func() error { return c.answer(signature) }) != nil {
		outcome = Failed
	}
	_ = panics.Guard(nil, "who counts copies for shadows", func() error { c.shadow.told(outcome); return nil })
}

var errOtherwise = errors.New("the shadow takes other inputs")

func (c *copied) answer(signature *Servable) error {
	ctx, cancel := context.WithTimeout(context.Background(), shadowPatience)
	defer cancel()
	same, err := c.other.Signature(signature.Name)
	if err != nil {
		return err
	}
	if !same.accepts(signature.Signature) {
		return errOtherwise
	}
	return same.Run(ctx, c.twin)
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
