package batch

import (
	"context"
	"errors"
	"math"
	"runtime"
	"time"

	"sluicegate/go_infer/internal/panics"
)

// slot is one goroutine that runs batches, and what it knows of the last.
type slot[T Payload] struct {
	number  int
	parts   []Part[T]
	dropped []Part[T]
	granted chan struct{} // by the Share

	busy    bool // it has formed a batch, and so is not one of those that are idle
	rows    int  // 0: nothing was run
	allowed int  // rows that it might have had
	took    time.Duration
	since   int64 // when it could have begun, had a slot of the Share been free
	ended   int64
}

// serve forms a batch, runs it and answers, until the batcher is closed and its queue empty.
func (b *Batcher[T]) serve(number int) {
	defer b.slots.Done()
	s := &slot[T]{number: number, parts: make([]Part[T], 0, min(b.limits.MaxBatch, 64)), granted: make(chan struct{}, 1)}
	for b.form(s) {
		s.rows, s.took = 0, 0
		b.drop(s.dropped)
		var err error
		if len(s.parts) > 0 {
			err = b.runBatch(s)
		}
		if b.member != nil {
			b.member.release(s.took)
		}
		for i := range s.parts {
			b.finish(&s.parts[i], err)
		}
		b.teller.rouse()
		clear(s.parts)
		clear(s.dropped)
	}
}

// form waits for work and takes it out of the queue, to s.parts what is to run, which may be nothing, and to s.dropped what is not; false
// if there will be no more.
func (b *Batcher[T]) form(s *slot[T]) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.busy {
		b.idle++
	}
	b.started[s.number] = 0
	ready := s.rows > 0 // and something waits since before it ended
	if ready {
		b.learn(s)
	}
	// On busy cores requests are ready to come into the queue and only wait for a processor. They get it before a batch is formed
	// that has room for them, as long as more come; if there are none this returns at once. So batches are large when that pays, and
	// nobody waits for a timer.
	seen := 0
	var now, free int64
	waited := false // for company, as long as that may take
	for {
		for b.queue.size == 0 && !b.closed {
			ready, free, waited = false, 0, false
			b.wake.Wait()
		}
		if b.queue.size == 0 {
			return false
		}
		if rows := b.rows(); rows > seen && b.limits.Coalesce && rows < b.limit {
			seen = rows
			b.mu.Unlock()
			runtime.Gosched()
			b.mu.Lock()
			continue
		}
		now = b.clock()
		if free == 0 {
			free = now
		}
		if waited || b.complete(now, free, &waited) {
			break
		}
		ready = false
	}
	s.busy = true
	b.idle--
	s.since = now
	if ready {
		s.since = s.ended
	}
	if b.member != nil && !b.member.try() {
		b.mu.Unlock()
		b.member.acquire(s.granted)
		b.mu.Lock()
		now = b.clock()
	}
	b.take(s, now)
	if len(s.parts) > 0 {
		b.started[s.number] = now
		b.batches++
	}
	return true
}

// complete says whether a batch is to be run now by a slot that has been free for it since then: it is as large as is worth waiting for
// (with Delay: full), has waited long enough, or would otherwise be late. If not it waits until that may have changed. For company
// nobody waits longer than a Run of what is there takes.
func (b *Batcher[T]) complete(now, free int64, waited *bool) bool {
	rows := b.rows()
	if rows == 0 || b.closed || !b.limits.Coalesce {
		return true
	}
	enough, due := b.limit, b.oldest+int64(b.limits.Delay)
	if b.limits.Delay == 0 {
		var patience time.Duration
		enough, patience = b.company.wanted(rows, &b.runs, b.limit)
		due = free + int64(patience)
	}
	if rows >= enough || now >= due {
		return true
	}
	for _, line := range b.queue.lines {
		if len(line) > 0 {
			due = min(due, b.urgent(line[0].job))
		}
	}
	if now >= due {
		return true
	}
	timer := time.AfterFunc(time.Duration(due-now), func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		*waited = b.limits.Delay == 0
		b.wake.Broadcast()
	})
	b.enough = enough
	if b.gathers == 0 || due < b.due {
		b.due = due
	}
	b.gathers++
	b.wake.Wait()
	b.gathers--
	timer.Stop()
	return false
}

// learn makes use of what a Run took. The mutex is held.
func (b *Batcher[T]) learn(s *slot[T]) {
	b.pace.learn(s.rows, time.Duration(s.ended-s.since))
	b.runs.learn(s.rows, s.took)
	b.company.ran(s.rows, b.rows())
	if b.limits.Target > 0 {
		bucket, allowed := b.limits.Bucket(s.rows), b.limits.Bucket(s.allowed)
		b.limit = b.limits.within(b.adapter.observe(time.Duration(s.ended), bucket, allowed, s.took))
	}
}

// take fills a batch. The mutex is held.
func (b *Batcher[T]) take(s *slot[T], now int64) {
	s.parts, s.dropped = s.parts[:0], s.dropped[:0]
	s.allowed = b.limit
	usual := int64(b.pace.run(min(b.rows(), b.limit)))
	rows := 0
	if b.batches%fairTurn == fairTurn-1 {
		if number := b.leftBehind(now); number >= 0 {
			rows = b.fill(s, number, 1, rows, now, usual)
		}
	}
	for number := range b.queue.lines {
		rows = b.fill(s, number, math.MaxInt, rows, now, usual)
	}
	b.oldest = now // of what is left; it has waited for a Run, which is company enough
	if b.limits.Delay > 0 && b.rows() > 0 {
		b.oldest = now - int64(b.limits.Delay)
	}
}

// leftBehind is the lowest line whose first has waited for Aging; -1 if there is none below the highest.
func (b *Batcher[T]) leftBehind(now int64) int {
	for number := classes - 1; number > 0; number-- {
		if line := b.queue.lines[number]; len(line) > 0 && line[0].key <= now {
			return number
		}
	}
	return -1
}

// fill moves at most so many parts of one line into the batch that has rows already, as far as they fit, and drops what costs no Run; it
// returns the rows that the batch has then. A request is divided only if it is larger than any batch: then it fills what room there is.
func (b *Batcher[T]) fill(s *slot[T], number, most, rows int, now, usual int64) int {
	for most > 0 && len(b.queue.lines[number]) > 0 {
		next := &b.queue.lines[number][0]
		j := next.job
		if j.gone != nil {
			b.stale--
			b.held -= j.bytes
			s.dropped = append(s.dropped, b.queue.pop(number))
			continue
		}
		if now >= j.deadline || !j.alone && j.deadline-now < usual {
			b.leave(j, next.Rows)
			s.dropped = append(s.dropped, b.queue.pop(number))
			continue
		}
		room := b.limit - rows
		switch {
		case len(s.parts) == 0 && (!b.limits.Coalesce || b.limits.Whole && next.Rows > b.limit), b.limits.Coalesce && next.Rows <= room:
			rows += next.Rows
			j.taken += next.Rows
			b.leave(j, next.Rows)
			s.parts = append(s.parts, b.queue.pop(number))
		case b.limits.Coalesce && !b.limits.Whole && next.Rows > b.limit && room > 0:
			part := *next
			part.Rows = room
			part.Payload.Retain()
			next.Start += room
			next.Rows -= room
			j.taken += room
			b.leave(j, room)
			s.parts = append(s.parts, part)
			return b.limit
		default:
			return rows
		}
		most--
	}
	return rows
}

func (b *Batcher[T]) runBatch(s *slot[T]) error {
	for i := range s.parts {
		s.rows += s.parts[i].Rows
	}
	b.events.Batch(len(s.parts), s.rows)
	began := b.clock()
	err := panics.Guard(nil, "a Run", func() error { return b.run(s.number, s.parts) })
	s.ended = b.clock()
	s.took = time.Duration(s.ended - began)
	b.events.Ran(s.took)
	return err
}

// drop ends parts that cost no Run: nobody waits for them, or another part of their request has failed, or they were late.
func (b *Batcher[T]) drop(parts []Part[T]) {
	for i := range parts {
		reason := parts[i].job.gone
		switch {
		case reason == nil || errors.Is(reason, context.DeadlineExceeded):
			b.events.Dropped(true)
			reason = ErrExpired
		case errors.Is(reason, context.Canceled):
			b.events.Dropped(false)
		}
		b.finish(&parts[i], reason)
	}
	if len(parts) > 0 {
		b.teller.rouse()
	}
}

// finish counts one part of a job as done; the last one answers, or leaves it to the teller, who is to be roused.
func (b *Batcher[T]) finish(part *Part[T], err error) {
	part.Payload.Release()
	j := part.job
	if err == nil {
		err = part.failure
	}
	if err != nil {
		b.fail(j, err, part.Rows)
	}
	if j.left.Add(-int32(part.Rows)) > 0 {
		return
	}
	if failure := j.failure.Load(); failure != nil {
		err = *failure
	}
	if j.waiter == nil {
		j.done <- err
	} else if !j.told.Swap(true) {
		b.count(j, err)
		b.teller.add(news{j.waiter, err, j})
	}
}

// fail keeps the first failure of a job, and what of it still waits from costing a Run.
func (b *Batcher[T]) fail(j *job, err error, rows int) {
	j.failure.CompareAndSwap(nil, &err)
	if int(j.left.Load()) > rows {
		b.mu.Lock()
		b.forsake(j, err)
		b.mu.Unlock()
	}
}
