package batch

import (
	"context"
	"sync"

	"sluicegate/go_infer/internal/panics"
)

// Waiter is who Start works for.
type Waiter interface {
	// Ended is called once, with what Do would have returned. Others are told after it, so it must not wait for anything. What it
	// returns, unless that is nil, is called when all that ended at the same time have been told.
	Ended(err error) (after func())
}

// Context is one whose end Start can be told of, which spares a goroutine that waits for it.
type Context interface {
	context.Context
	// Notify has the listener told when the context ends, and nobody any more who was to be told before; with nil, nobody. If it has
	// ended already that is returned, and the listener not told. When Notify returns, who was to be told before is not being told.
	Notify(listener Listener) (ended error)
}

// Listener is told that a context has ended, perhaps with locks held: it must not call the context, nor wait.
type Listener interface{ Over(reason error) }

// Over is what a job's context says.
func (j *job) Over(reason error) { j.owner.desert(j, reason) }

// owner is a Batcher, of whatever payload.
type owner interface{ desert(j *job, reason error) }

// news is what a waiter is to be told.
type news struct {
	waiter Waiter
	err    error
	job    *job // done with, and to be used again; nil: somebody may know it still
}

// tell tells the waiter. If that panics it is its own loss: others wait to be told.
func (n *news) tell() (after func()) {
	defer func() {
		if reason := recover(); reason != nil {
			_ = panics.Stopped(nil, "who was told of an outcome", reason)
		}
	}()
	return n.waiter.Ended(n.err)
}

func guarded(f func()) {
	defer func() {
		if reason := recover(); reason != nil {
			_ = panics.Stopped(nil, "what follows an outcome", reason)
		}
	}()
	f()
}

// teller brings outcomes to waiters, in goroutines of its own: whoever ran a batch goes on with the next. There are as many as can run
// batches, and none before the first outcome. The zero value needs most.
type teller struct {
	most int // goroutines

	mu      sync.Mutex
	wake    sync.Cond
	waiting []news
	idle    int
	running int
	closed  bool
}

// atOnce is how many outcomes are told before what they have left for after is called.
const atOnce = 32

// add takes an outcome; rouse has it told.
func (t *teller) add(n news) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waiting = append(t.waiting, n)
}

func (t *teller) rouse() {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case len(t.waiting) == 0:
	case t.idle > 0:
		t.wake.Signal()
	case t.running < t.most || t.closed:
		t.running++
		go t.tell()
	}
}

func (t *teller) tell() {
	told := make([]news, 0, atOnce)
	var after []func()
	for {
		if told = t.next(told[:0]); len(told) == 0 {
			return
		}
		for i := range told {
			if j := told[i].job; j != nil {
				_ = j.context.Notify(nil)
				recycle(j)
			}
			if f := told[i].tell(); f != nil {
				after = append(after, f)
			}
		}
		for _, f := range after {
			guarded(f)
		}
		clear(told)
		clear(after)
		after = after[:0]
	}
}

// next waits for outcomes and takes some of them; none: there will be no more.
func (t *teller) next(told []news) []news {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.waiting) == 0 {
		if t.closed {
			t.running--
			t.wake.Broadcast()
			return nil
		}
		t.idle++
		t.wake.Wait()
		t.idle--
	}
	n := min(len(t.waiting), atOnce)
	told = append(told, t.waiting[:n]...)
	left := copy(t.waiting, t.waiting[n:])
	clear(t.waiting[left:])
	if t.waiting = t.waiting[:left]; left > 0 && t.idle > 0 {
		t.wake.Signal()
	}
	return told
}

// close returns when everybody has been told. What is added later is told by a goroutine that ends with it.
func (t *teller) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	t.wake.Broadcast()
	for t.running > 0 {
		t.wake.Wait()
	}
}
