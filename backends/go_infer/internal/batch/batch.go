// Package batch gathers the work of many requests into one Run.
//
// Contract: Do blocks until the work was run, dropped or abandoned. A batch forms from whatever waits at the moment a Run slot frees:
// there is no timer and no idle tick, so a lone request never waits for company and a busy server batches by itself.
//
// Invariants:
//   - the queue is bounded in rows; what does not fit is refused at once, never parked;
//   - work whose deadline passed, or whose client left, costs no Run: it is dropped when a slot would have taken it;
//   - order is first come, first served; a request larger than a batch is split and answered when its last part is done;
//   - a payload is retained for every part handed to the runner and released after, so a client that leaves in the middle of a Run
//     takes no memory away from under it.
//
// Not here, on purpose: anything about tensors. The runner decides how rows become a batch.
package batch

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// Refusals. They are values to compare with errors.Is; the API layer words them for its protocol.
var (
	ErrOverloaded = errors.New("the queue is full")
	ErrClosed     = errors.New("the model is shutting down")
	ErrExpired    = errors.New("the deadline passed while the request waited")
)

// Payload is the work itself. It must stay usable while it is retained more often than released.
type Payload interface {
	Retain()
	Release()
}

// Part is a run of consecutive rows of one payload.
type Part[T Payload] struct {
	Payload T
	Start   int // first row
	Rows    int
	job     *job
}

// Limits are the numbers of one batcher.
type Limits struct {
	MaxBatch int  // rows in one Run
	MaxQueue int  // rows that may wait
	Slots    int  // Runs at the same time
	Coalesce bool // false: one request per Run, never split
}

// Events are told what happens, from inside the batcher; they must be quick and must not call back.
type Events interface {
	Batch(parts, rows int) // a Run is about to start
	Ran(took time.Duration)
	Dropped(expired bool) // work cost no Run: its deadline had passed, or else its client had left
}

type job struct {
	done     chan error
	left     atomic.Int32 // parts not yet finished
	deadline time.Time    // zero: none
	queued   int          // rows in the queue; guarded by the batcher's mutex
	gone     error        // why nobody waits any more: queued parts are dropped; guarded by the batcher's mutex
	failure  atomic.Pointer[error]
}

// Batcher is a queue and its Run slots.
type Batcher[T Payload] struct {
	limits Limits
	run    func(slot int, parts []Part[T]) error
	events Events
	now    func() time.Time

	mu      sync.Mutex
	wake    sync.Cond
	queue   ring[T]
	waiting int // rows in the queue, without those whose client left
	stale   int // parts in the queue whose client left
	closed  bool
	slots   sync.WaitGroup
}

// New starts the slots. run is called by one goroutine per slot, with at least one part and at most MaxBatch rows.
func New[T Payload](limits Limits, run func(slot int, parts []Part[T]) error, events Events, now func() time.Time) *Batcher[T] {
	b := &Batcher[T]{limits: limits, run: run, events: events, now: now}
	b.wake.L = &b.mu
	for slot := range limits.Slots {
		b.slots.Add(1)
		go b.serve(slot)
	}
	return b
}

// Waiting is the number of rows in the queue.
func (b *Batcher[T]) Waiting() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.waiting
}

// Do runs the payload's rows and returns when they are done. The caller keeps its own reference to the payload throughout.
// Errors: ErrOverloaded, ErrClosed, ErrExpired, the context's error, or the runner's.
func (b *Batcher[T]) Do(ctx context.Context, payload T, rows int) error {
	if ctx.Err() != nil { // while its body was read, or before
		reason := context.Cause(ctx)
		for range b.limits.parts(rows) {
			b.events.Dropped(errors.Is(reason, context.DeadlineExceeded))
		}
		return reason
	}
	j := jobs.Get().(*job)
	j.deadline, _ = ctx.Deadline()
	if err := b.submit(j, payload, rows); err != nil {
		jobs.Put(j)
		return err
	}
	select {
	case err := <-j.done:
		// Every part was taken and finished, so nobody else knows this job any more.
		recycle(j)
		return err
	case <-ctx.Done():
		reason := context.Cause(ctx)
		b.abandon(j, reason)
		return reason
	}
}

var jobs = sync.Pool{New: func() any { return &job{done: make(chan error, 1)} }}

func recycle(j *job) {
	j.gone = nil
	j.failure.Store(nil)
	jobs.Put(j)
}

func (b *Batcher[T]) submit(j *job, payload T, rows int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return ErrClosed
	case b.waiting > 0 && b.waiting+rows > b.limits.MaxQueue:
		return ErrOverloaded
	}
	step := rows
	if b.limits.Coalesce {
		step = min(rows, b.limits.MaxBatch)
	}
	j.left.Store(int32(b.limits.parts(rows)))
	for start := 0; start < rows; start += step {
		payload.Retain()
		b.queue.push(Part[T]{Payload: payload, Start: start, Rows: min(step, rows-start), job: j})
		b.wake.Signal()
	}
	j.queued = rows
	b.waiting += rows
	return nil
}

// abandon marks the job; its queued parts stop counting now and are thrown away when they are reached, or swept out when they
// are the larger part of the queue: clients that come and go must not fill memory while a long Run holds every slot.
func (b *Batcher[T]) abandon(j *job, reason error) {
	var swept []Part[T]
	b.mu.Lock()
	j.gone = reason
	b.waiting -= j.queued
	b.stale += b.limits.parts(j.queued)
	j.queued = 0
	if b.stale >= sweepFrom && 2*b.stale > b.queue.size {
		swept = b.sweep()
	}
	b.mu.Unlock()
	b.drop(swept)
}

// sweepFrom is the number of abandoned parts below which cleaning up early is not worth a walk over the queue.
const sweepFrom = 64

// parts is how many parts so many rows of one request make.
func (l Limits) parts(rows int) int {
	if !l.Coalesce {
		return min(1, rows)
	}
	return (rows + l.MaxBatch - 1) / l.MaxBatch
}

func (b *Batcher[T]) sweep() (swept []Part[T]) {
	for range b.queue.size {
		part := b.queue.pop()
		if part.job.gone != nil {
			swept = append(swept, part)
		} else {
			b.queue.push(part)
		}
	}
	b.stale = 0
	return swept
}

func (b *Batcher[T]) serve(slot int) {
	defer b.slots.Done()
	parts := make([]Part[T], 0, b.limits.MaxBatch)
	for {
		var dropped []Part[T]
		b.mu.Lock()
		for b.queue.size == 0 && !b.closed {
			b.wake.Wait()
		}
		if b.queue.size == 0 {
			b.mu.Unlock()
			return
		}
		parts, dropped = b.take(parts[:0])
		b.mu.Unlock()
		b.drop(dropped)
		if len(parts) > 0 {
			b.runBatch(slot, parts)
			clear(parts)
		}
	}
}

// take moves what fits into one Run from the queue to parts, and what nobody waits for any more to dropped.
func (b *Batcher[T]) take(parts []Part[T]) (taken, dropped []Part[T]) {
	rows := 0
	var now time.Time
	for b.queue.size > 0 {
		next := b.queue.at(0)
		if next.job.gone != nil {
			b.stale--
			dropped = append(dropped, b.queue.pop())
			continue
		}
		if !next.job.deadline.IsZero() {
			if now.IsZero() {
				now = b.now()
			}
			if !now.Before(next.job.deadline) {
				b.leave(next)
				dropped = append(dropped, b.queue.pop())
				continue
			}
		}
		if len(parts) > 0 && (!b.limits.Coalesce || rows+next.Rows > b.limits.MaxBatch) {
			break
		}
		rows += next.Rows
		b.leave(next)
		parts = append(parts, b.queue.pop())
	}
	return parts, dropped
}

// leave counts a part out of the queue.
func (b *Batcher[T]) leave(part *Part[T]) {
	b.waiting -= part.Rows
	part.job.queued -= part.Rows
}

func (b *Batcher[T]) drop(parts []Part[T]) {
	for i := range parts {
		gone := parts[i].job.gone
		b.events.Dropped(gone == nil || errors.Is(gone, context.DeadlineExceeded))
		b.finish(&parts[i], ErrExpired)
	}
}

func (b *Batcher[T]) runBatch(slot int, parts []Part[T]) {
	rows := 0
	for i := range parts {
		rows += parts[i].Rows
	}
	b.events.Batch(len(parts), rows)
	started := b.now()
	err := b.run(slot, parts)
	b.events.Ran(b.now().Sub(started))
	for i := range parts {
		b.finish(&parts[i], err)
	}
}

// finish counts one part of a job as done; the last one answers.
func (b *Batcher[T]) finish(part *Part[T], err error) {
	part.Payload.Release()
	j := part.job
	if err != nil {
		j.failure.CompareAndSwap(nil, &err)
	}
	if j.left.Add(-1) == 0 {
		if failure := j.failure.Load(); failure != nil {
			err = *failure
		}
		j.done <- err
	}
}

// Close refuses new work, lets what waits finish, and returns when every slot has stopped.
func (b *Batcher[T]) Close() {
	b.mu.Lock()
	b.closed = true
	b.wake.Broadcast()
	b.mu.Unlock()
	b.slots.Wait()
}
