package repository

import (
	"context"
	"errors"
	"time"

	"sluicegate/go_infer/internal/status"
)

var errWaited = errors.New("waited long enough")

// await asks for a version to be loaded and waits until it is: for Options.LazyWait and no longer than ctx. All who ask for the same
// version wait for one load; it goes on if they leave, for the next who asks.
func (r *Repository) await(ctx context.Context, name string, wanted Wanted, refusal error) (*Lease, error) {
	r.mu.Lock()
	m := r.models[name]
	if m == nil {
		r.mu.Unlock()
		return nil, refusal
	}
	lease, v, err := r.acquire(name, wanted)
	if lease != nil || v == nil || !v.aspired || v.err != nil && v.due.After(time.Now()) {
		r.mu.Unlock()
		return lease, err
	}
	before := v.failures
	if !v.wanted { // also while it is being unloaded: it is loaded again then
		v.wanted = true
		m.look()
	}
	v.waiters++
	r.mu.Unlock()
	defer r.leave(v)

	ctx, cancel := context.WithTimeoutCause(ctx, r.options.LazyWait, errWaited)
	defer cancel()
	waited := r.until(ctx, func() bool {
		lease, err = nil, nil
		if v.lease != nil {
			lease, _, err = r.acquire(name, wanted)
			return true
		}
		if v.failures > before {
			err = status.Errorf(status.Unavailable, "%s cannot be loaded: %v", wanted.request(name), v.err)
			return true
		}
		return v.state == End
	})
	switch {
	case errors.Is(waited, context.DeadlineExceeded):
		return nil, status.Errorf(status.DeadlineExceeded, "the request's deadline passed while %s was loaded", wanted.request(name))
	case errors.Is(waited, errWaited):
		return nil, status.Errorf(status.Unavailable, "Servable is still loading: %s", wanted.request(name))
	case waited != nil:
		return nil, status.Errorf(status.Cancelled, "the client went away")
	case lease == nil && err == nil:
		return nil, refusal
	}
	return lease, err
}

// leave notes that somebody no longer waits for a version: from then on it may be unloaded for others.
func (r *Repository) leave(v *version) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if v.waiters--; v.waiters == 0 {
		r.broadcast()
	}
}
