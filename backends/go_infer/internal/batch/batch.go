// Package batch gathers the work of many requests into one Run.
//
// Contract: Do blocks until the work was run, refused, dropped or abandoned; Start does not, and tells a waiter. A batch forms from whatever waits at the moment a Run slot
// frees: there is no idle tick, so a lone request never waits for company (unless Limits.Delay asks for that) and a busy server
// batches by itself.
//
// Invariants:
//   - the queue is bounded in rows and bytes; what does not fit is refused at once, never parked, and so is what could not be answered
//     before its deadline. What waits and is of a lower class makes room;
//   - work whose deadline passed, or whose client left, costs no Run: it is dropped when a slot would have taken it;
//   - a higher class goes first, within a class the earliest deadline, else who came first, and nobody waits for ever (see queue);
//   - a request larger than a batch is run in parts, in order, and answered when the last is done. If one fails so does the request, and
//     the others are not run;
//   - every request ends as exactly one of the outcomes in Tally;
//   - a payload is retained for every part handed to the runner and released after, so a client that leaves in the middle of a Run
//     takes no memory away from under it.
//
// Not here, on purpose: anything about tensors. The runner decides how rows become a batch.
package batch

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"
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
	key     int64  // when it must be taken: its place in the queue
	number  uint64 // in the order of coming
	failure error
}

// Fail is for the runner: this part's request has failed, and not the batch that it is in.
func (p *Part[T]) Fail(err error) { p.failure = err }

// Failed is what Fail was told.
func (p *Part[T]) Failed() error { return p.failure }

// Options say how a request wants to be treated; the zero value is the ordinary.
type Options struct {
	Class    Class
	Deadline time.Time // beside the context's; the earlier counts. Zero: none
	Bytes    int       // of memory that it holds while it waits
}

// Events are told what happens, from inside the batcher; they must be quick and must not call back.
type Events interface {
	Batch(parts, rows int) // a Run is about to start
	Ran(took time.Duration)
	Dropped(expired bool) // work cost no Run: its deadline had passed, or else its client had left
}

// never is a deadline that is none.
const never = math.MaxInt64

type job struct {
	done     chan error
	left     atomic.Int32 // rows not yet finished
	deadline int64        // nanoseconds since the batcher's epoch
	rows     int
	alone    bool // nothing waited and a slot was idle when it came
	failure  atomic.Pointer[error]

	waiter  Waiter // who is told; nil: somebody waits in Do
	owner   owner
	context Context
	told    atomic.Bool // somebody tells the waiter, or has told it

	// guarded by the batcher's mutex
	class  Class
	bytes  int   // counted as waiting, as long as rows are
	queued int   // rows in the queue
	taken  int   // rows that a slot has taken, to run them
	gone   error // why its rows in the queue are to be dropped
}

// Batcher is a queue and its Run slots.
type Batcher[T Payload] struct {
	limits Limits
	run    func(slot int, parts []Part[T]) error
	events Events
	now    func() time.Time
	epoch  time.Time
	member *Member // nil: the slots are this batcher's own
	tally  tally
	teller teller
	depth  atomic.Int64 // rows in the queue, for who looks without the mutex
	slots  sync.WaitGroup

	mu      sync.Mutex
	wake    sync.Cond
	queue   queue[T]
	waiting [classes]int // rows in the queue, without those whose client left
	bytes   [classes]int
	stale   int     // parts in the queue whose client left
	held    int     // bytes of those
	batches int     // begun
	limit   int     // rows in the next one
	idle    int     // slots that have nothing to do
	oldest  int64   // when the first came of what waits, about; for Delay
	started []int64 // by slot: when its Run began; 0: none
	pace    pace    // from when a slot could begin to the end of its Run
	runs    pace    // of Runs alone
	company company
	gathers int   // slots that wait for company
	enough  int   // rows that end that
	due     int64 // and when it ends without them
	adapter adapter
	turned  turned
	closed  bool
}

// New starts the slots. run is called by one goroutine per slot, with at least one part and at most MaxBatch rows. name and weight are
// those of the member of limits.Share, if there is one.
func New[T Payload](limits Limits, run func(slot int, parts []Part[T]) error, events Events, now func() time.Time) *Batcher[T] {
	return NewShared("", 1, limits, run, events, now)
}

// NewShared is New for one of several batchers that have limits.Share in common, as the member of that name and weight.
func NewShared[T Payload](name string, weight int, limits Limits, run func(slot int, parts []Part[T]) error, events Events,
	now func() time.Time) *Batcher[T] {
	if limits.Aging == 0 {
		limits.Aging = DefaultAging
	}
	if limits.MaxBytes == 0 {
		limits.MaxBytes = math.MaxInt
	}
	b := &Batcher[T]{
		limits: limits, run: run, events: events, now: now, epoch: now(),
		limit: limits.MaxBatch, idle: limits.Slots, adapter: newAdapter(limits.Target, limits.MaxBatch), started: make([]int64, limits.Slots),
	}
	if limits.Share != nil {
		b.member = limits.Share.Join(name, weight)
	}
	b.wake.L = &b.mu
	b.teller.wake.L, b.teller.most = &b.teller.mu, limits.Slots
	for slot := range limits.Slots {
		b.slots.Add(1)
		go b.serve(slot)
	}
	return b
}

// clock is the time since the epoch, in nanoseconds.
func (b *Batcher[T]) clock() int64 { return int64(b.now().Sub(b.epoch)) }

// Waiting is the number of rows in the queue. It costs nothing to ask.
func (b *Batcher[T]) Waiting() int { return int(b.depth.Load()) }

func (b *Batcher[T]) rows() int { return b.waiting[0] + b.waiting[1] + b.waiting[2] }

// Limit is the most rows that the next batch may have.
func (b *Batcher[T]) Limit() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.limit
}

// Tally is what became of the requests so far.
func (b *Batcher[T]) Tally() Tally { return b.tally.read() }

// Learn tells how long a Run of so many rows takes, if somebody has measured it before the first request: warming does.
func (b *Batcher[T]) Learn(rows int, took time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pace.learn(rows, took)
	b.runs.learn(rows, took)
}

// Do runs the payload's rows and returns when they are done. The caller keeps its own reference to the payload throughout.
// Errors: a *Refusal, ErrExpired, ErrNoRows, the context's error, or the runner's.
func (b *Batcher[T]) Do(ctx context.Context, payload T, rows int, options Options) error {
	j, now, err := b.job(ctx, rows, options)
	if err != nil {
		return err
	}
	if refusal := b.submit(j, payload, now); refusal != nil {
		jobs.Put(j)
		b.tally.refused[refusal.Reason].Add(1)
		return refusal
	}
	select {
	case err := <-j.done:
		// Every part was taken and finished, so nobody else knows this job any more.
		b.count(j, err)
		recycle(j)
		return err
	case <-ctx.Done():
		b.abandon(j, ctx.Err())
		b.interrupted(ctx.Err())
		return context.Cause(ctx)
	}
}

// Start is Do for who does not wait: it returns at once, and the waiter is told when the rows are done, or when the context ends. With
// an error it is not. Whoever starts keeps its reference to the payload until the waiter has been told.
func (b *Batcher[T]) Start(ctx Context, payload T, rows int, options Options, waiter Waiter) error {
	j, now, err := b.job(ctx, rows, options)
	if err != nil {
		return err
	}
	j.waiter, j.owner, j.context = waiter, b, ctx
	if err := ctx.Notify(j); err != nil { // since job looked
		recycle(j)
		b.events.Dropped(errors.Is(err, context.DeadlineExceeded))
		b.interrupted(err)
		return err
	}
	refusal := b.submit(j, payload, now)
	if refusal == nil {
		return nil
	}
	_ = ctx.Notify(nil)
	if j.told.Load() {
		return nil // it has ended meanwhile
	}
	recycle(j)
	b.tally.refused[refusal.Reason].Add(1)
	return refusal
}

// job makes the job of a request that has just come, or says why it is none; and when it came.
func (b *Batcher[T]) job(ctx context.Context, rows int, options Options) (*job, int64, error) {
	b.tally.received.Add(1)
	if rows < 1 {
		b.tally.failed.Add(1)
		return nil, 0, ErrNoRows
	}
	if err := ctx.Err(); err != nil { // while its body was read, or before
		b.events.Dropped(errors.Is(err, context.DeadlineExceeded))
		b.interrupted(err)
		return nil, 0, context.Cause(ctx)
	}
	j := jobs.Get().(*job)
	j.deadline = never
	if deadline, ok := ctx.Deadline(); ok {
		j.deadline = int64(deadline.Sub(b.epoch))
	}
	if !options.Deadline.IsZero() {
		j.deadline = min(j.deadline, int64(options.Deadline.Sub(b.epoch)))
	}
	j.class, j.bytes, j.rows = options.Class, options.Bytes, rows
	now := b.clock()
	if j.deadline <= now { // and its context does not know yet
		jobs.Put(j)
		b.events.Dropped(true)
		b.tally.expired.Add(1)
		return nil, 0, ErrExpired
	}
	return j, now, nil
}

// interrupted counts a request whose context ended for that reason.
func (b *Batcher[T]) interrupted(reason error) {
	if errors.Is(reason, context.DeadlineExceeded) {
		b.tally.expired.Add(1)
	} else {
		b.tally.cancelled.Add(1)
	}
}

// desert is told that a waiter's context has ended.
func (b *Batcher[T]) desert(j *job, reason error) {
	if j.told.Swap(true) {
		return
	}
	b.abandon(j, reason)
	b.interrupted(reason)
	b.teller.add(news{waiter: j.waiter, err: reason})
	b.teller.rouse()
}

func (b *Batcher[T]) count(j *job, err error) {
	if err == nil {
		b.tally.answered.Add(1)
		return
	}
	if err == ErrExpired { //nolint:errorlint // the very value: a runner may wrap what it likes
		b.tally.expired.Add(1)
		b.tally.wasted.Add(int64(j.taken)) // of an earlier part
	} else if refusal, ok := err.(*Refusal); ok { //nolint:errorlint // as above
		b.tally.refused[refusal.Reason].Add(1)
	} else {
		b.tally.failed.Add(1)
	}
}

var jobs = sync.Pool{New: func() any { return &job{done: make(chan error, 1)} }}

func recycle(j *job) {
	j.gone, j.taken = nil, 0
	j.failure.Store(nil)
	j.waiter, j.owner, j.context = nil, nil, nil
	j.told.Store(false)
	jobs.Put(j)
}

// abandon marks the job; what it has in the queue stops counting now and is thrown away when it is reached, or swept out when such
// parts are the larger part of the queue, or hold a quarter of the memory that may wait: clients that come and go must not fill it while
// a long Run holds every slot.
func (b *Batcher[T]) abandon(j *job, reason error) {
	var swept []Part[T]
	b.mu.Lock()
	b.tally.wasted.Add(int64(j.taken))
	b.forsake(j, reason)
	if b.stale >= sweepFrom && 2*b.stale > b.queue.size || b.held > b.limits.MaxBytes/4 {
		swept = b.queue.sweep()
		b.stale, b.held = 0, 0
	}
	b.mu.Unlock()
	b.drop(swept)
}

// forsake makes a job one whose rows in the queue are dropped. The mutex is held.
func (b *Batcher[T]) forsake(j *job, reason error) {
	if j.gone != nil || j.queued == 0 {
		return
	}
	j.gone = reason
	b.stale++ // what a job has in the queue is one part
	b.held += j.bytes
	b.leave(j, j.queued)
}

// leave counts rows out of the queue, and the job's memory with the last of them. The mutex is held.
func (b *Batcher[T]) leave(j *job, rows int) {
	b.waiting[j.class.line()] -= rows
	b.depth.Add(int64(-rows))
	if j.queued -= rows; j.queued == 0 {
		b.bytes[j.class.line()] -= j.bytes
	}
}

// sweepFrom is the number of abandoned parts below which cleaning up early is not worth a walk over the queue.
const sweepFrom = 64

// Close refuses new work, lets what waits finish, and returns when every slot has stopped.
func (b *Batcher[T]) Close() {
	b.mu.Lock()
	first := !b.closed
	b.closed = true
	b.wake.Broadcast()
	b.mu.Unlock()
	b.slots.Wait()
	b.teller.close()
	if first && b.member != nil {
		b.member.Leave()
	}
}
