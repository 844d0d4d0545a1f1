package link

import (
	"context"
	"sync"
	"time"

	"sluicegate/go_infer/internal/batch"
)

// streamContext ends when its stream is cancelled or late. Made for reuse: context.WithDeadline costs a timer and four allocations. One that
// has ended stays so: the goroutines that package context has for what is derived from it ask why it ended, and may do so when the handler
// has long returned.
type streamContext struct {
	mu       sync.Mutex
	deadline time.Time // zero: none any more
	done     chan struct{}
	err      error
	listener batch.Listener // nil: nobody
	urgent   bool           // the frame said a priority; fixed before the handler runs
}

func (c *streamContext) Done() <-chan struct{} { return c.done }

// Value knows how urgent the request is, and nothing else.
func (c *streamContext) Value(key any) any {
	if key == batch.ContextKey && c.urgent {
		return batch.Critical
	}
	return nil
}

func (c *streamContext) Deadline() (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.deadline, !c.deadline.IsZero()
}

// lift takes the deadline away: an answer that has begun lasts as long as its reader wants it.
func (c *streamContext) lift() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = time.Time{}
}

// expire says whether the deadline has passed just now, and ends the context if so.
func (c *streamContext) expire(now time.Time) bool {
	deadline, ok := c.Deadline()
	if !ok || now.Before(deadline) || c.Err() != nil {
		return false
	}
	c.end(context.DeadlineExceeded)
	return true
}

func (c *streamContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *streamContext) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		close(c.done)
		if c.listener != nil {
			c.listener.Over(err)
		}
	}
}

// Notify has the listener told when the context ends, with the connection's mutex held.
func (c *streamContext) Notify(listener batch.Listener) (ended error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listener = nil
	if c.err == nil {
		c.listener = listener
	}
	return c.err
}

var _ batch.Context = (*streamContext)(nil)
