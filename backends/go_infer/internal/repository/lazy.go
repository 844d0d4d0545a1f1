package repository

import (
	"context"
	"errors"
	"time"

	"sluicegate/go_infer/internal/status"
)

var errWaited = errors.New("waited long enough")

// await asks for a version to be loaded and waits until it is: for Options.LazyWait and no longer than ctx. All who ask for the same
// version wait for one load; it goes on if they leave, for the next who asks. If it cannot be loaded and the request means no version
// in particular, the next best is asked for. chosen is the version that the request came to mean, nil if there was none; it is not
// chosen anew, for then shares of the traffic that are loaded would get more than theirs.
func (r *Repository) await(ctx context.Context, name string, wanted Wanted, chosen *version, refusal error) (*Lease, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, r.options.LazyWait, errWaited)
	defer cancel()
	for failed := (*version)(nil); ; {
		r.mu.Lock()
		m := r.models[name]
		if m == nil {
			r.mu.Unlock()
			return nil, refusal
		}
		lease, v, err := (*Lease)(nil), chosen, refusal
		if v == nil || m.version(v.place.Number) != v {
			lease, v, err = r.acquire(name, wanted)
		} else if lease = r.hold(v); lease != nil {
			err = nil
		}
		chosen = nil
		if lease != nil || v == nil || !v.aspired && !v.spare || v.err != nil && v.due.After(time.Now()) {
			r.mu.Unlock()
			return lease, err
		}
		if v == failed {
			r.mu.Unlock()
			return nil, refusal
		}
		before := v.failed
		if !v.wanted { // also while it is being unloaded: it is loaded again then
			v.wanted, v.since = true, time.Now()
			m.look()
		}
		if v.modest {
			v.modest = false
			r.broadcast() // who has counted on its memory
		}
		v.waiters++
		r.mu.Unlock()

		waited := r.until(ctx, func() bool { return v.lease != nil || v.failed != before || v.state == End })
		r.mu.Lock()
		lease = r.hold(v)
		if v.failed != before && v.err != nil {
			refusal, failed = status.Errorf(status.Unavailable, "%s cannot be loaded: %v", wanted.request(name), v.err), v
		}
		after := r.retryAfter(v, time.Now())
		r.leave(v)
		r.mu.Unlock()
		switch {
		case lease != nil:
			return lease, nil
		case errors.Is(waited, context.DeadlineExceeded):
			return nil, status.Errorf(status.DeadlineExceeded, "the request's deadline passed while %s was loaded", wanted.request(name))
		case errors.Is(waited, errWaited):
			return nil, stillLoading(name, wanted, after)
		case waited != nil:
			return nil, status.Errorf(status.Cancelled, "the client went away")
		case failed != v && v.state == End:
			return nil, refusal
		}
	}
}

// leave notes that somebody no longer waits for a version: from then on it may be unloaded for others. Called with the lock held for
// writing.
func (r *Repository) leave(v *version) {
	if v.waiters--; v.waiters == 0 {
		r.broadcast()
	}
}

// stillLoading is the refusal of a request that has waited long enough; after is when the version may have memory, if it waits for that.
func stillLoading(name string, wanted Wanted, after time.Duration) error {
	refusal := status.Errorf(status.Unavailable, "Servable is still loading: %s", wanted.request(name))
	if after > 0 {
		refusal.Message += "; it waits for memory that other models use (--model_memory_budget)"
		refusal.RetryAfter = after
	}
	return refusal
}
