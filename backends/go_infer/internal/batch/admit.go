package batch

import "time"

// submit puts a job into the queue, or says why not.
func (b *Batcher[T]) submit(j *job, payload T, now int64) *Refusal {
	var displaced []Part[T]
	var instead *Refusal
	b.mu.Lock()
	if j.told.Load() { // its context has ended since it was started
		b.mu.Unlock()
		return nil
	}
	refusal := b.admit(j, now)
	if refusal != nil && refusal.Reason != Closing {
		if displaced = b.displace(j, refusal.Reason); displaced != nil {
			instead, refusal = refusal, nil
			instead.Reason = Displaced
		}
		b.turned.add(time.Duration(now), j.rows) // its own rows, or as many of others
	}
	if refusal == nil {
		b.enter(j, payload, now)
	}
	b.mu.Unlock()
	for i := range displaced {
		b.finish(&displaced[i], instead)
	}
	b.teller.rouse()
	return refusal
}

func (b *Batcher[T]) enter(j *job, payload T, now int64) {
	payload.Retain()
	line := j.class.line()
	j.left.Store(int32(j.rows))
	j.queued = j.rows
	j.alone = b.alone()
	if b.rows() == 0 {
		b.oldest = now
	}
	b.waiting[line] += j.rows
	b.depth.Add(int64(j.rows))
	b.bytes[line] += j.bytes
	b.queue.push(j.class, Part[T]{Payload: payload, Rows: j.rows, job: j, key: b.key(j, now)})
	b.company.came(now, j.rows, b.runs.run(b.limit))
	switch {
	case j.rows > b.limit && b.idle > 1:
		b.wake.Broadcast() // it makes several batches
	case b.gathers == 0 || b.rows() >= b.enough || b.urgent(j) < b.due:
		b.wake.Signal()
	}
}

// urgent is when a batch with what waits must begin, lest the job be late.
func (b *Batcher[T]) urgent(j *job) int64 {
	if j.deadline == never {
		return never
	}
	return j.deadline - 2*int64(b.pace.run(b.rows()))
}

// key is when a job must be taken at the latest.
func (b *Batcher[T]) key(j *job, now int64) int64 { return min(j.deadline, now+int64(b.limits.Aging)) }

// alone says that whoever comes now is taken at once.
func (b *Batcher[T]) alone() bool { return b.idle > 0 && b.queue.size == b.stale }

// admit says why a job cannot wait; nil if it can.
func (b *Batcher[T]) admit(j *job, now int64) *Refusal {
	switch {
	case b.closed:
		return &Refusal{Reason: Closing}
	case b.alone():
		// Also what is larger than the queue, and also if the deadline seems too near: or a wrong estimate would never be put right.
		return nil
	case j.deadline != never && b.late(j, now):
		return b.refusal(Late, now)
	case b.queue.size == b.stale:
		return nil // larger than the queue or not, nothing else waits
	case b.rows()+j.rows > b.limits.MaxQueue:
		return b.refusal(Rows, now)
	case b.held+b.bytes[0]+b.bytes[1]+b.bytes[2]+j.bytes > b.limits.MaxBytes:
		return b.refusal(Bytes, now)
	}
	return nil
}

// Hopeless says that a request of a class whose rows nobody has counted yet would be refused, and why: there is no room for even one, or
// not even one could be answered before the deadline (zero: none). Reading a body to find that out would cost more than the refusal.
// While nothing waits it takes no lock.
func (b *Batcher[T]) Hopeless(class Class, deadline time.Time) (reason Reason, hopeless bool) {
	if waiting := b.Waiting(); waiting == 0 || deadline.IsZero() && waiting < b.limits.MaxQueue {
		return Rows, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return Closing, false // Do says so
	case b.rows() >= b.limits.MaxQueue && !b.below(class):
		return Rows, true
	case deadline.IsZero() || b.rows() == 0:
		return Late, false
	}
	return Late, b.late(&job{class: class, rows: 1, deadline: int64(deadline.Sub(b.epoch))}, b.clock())
}

// TurnAway counts a request that was hopeless, and says when to come again.
func (b *Batcher[T]) TurnAway(reason Reason) *Refusal {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.clock()
	refusal := b.refusal(reason, now)
	b.turned.add(time.Duration(now), 1)
	b.tally.received.Add(1)
	b.tally.refused[reason].Add(1)
	return refusal
}

// below says whether something of a lower class waits.
func (b *Batcher[T]) below(class Class) bool {
	for _, lower := range b.waiting[class.line()+1:] {
		if lower > 0 {
			return true
		}
	}
	return false
}

// refusal says when what waits, and what was turned away of late, will be done.
func (b *Batcher[T]) refusal(reason Reason, now int64) *Refusal {
	rows := b.rows()
	after := b.drain(rows+b.turned.rows(time.Duration(now)), b.queue.size-b.stale)
	return &Refusal{Reason: reason, Waiting: rows, After: after}
}

// drain is how long so many rows, or without coalescing so many requests, keep all slots busy.
func (b *Batcher[T]) drain(rows, requests int) time.Duration {
	if !b.limits.Coalesce {
		return b.pace.rows(max(requests, 1), 1, b.limits.Slots)
	}
	return b.pace.rows(rows, b.limit, b.limits.Slots)
}

// late says whether a job that came now would be answered too late. What goes before it is everything of the higher classes and what must
// be taken earlier in its own; that is counted one by one only if it would be too late behind all of its own.
func (b *Batcher[T]) late(j *job, now int64) bool {
	line := j.class.line()
	rows, requests := j.rows, 1
	for number := range b.queue.lines[:line] {
		rows += b.waiting[number]
		requests += len(b.queue.lines[number])
	}
	free := now + b.busy(now)
	if free+int64(b.drain(rows+b.waiting[line], requests+len(b.queue.lines[line]))) <= j.deadline {
		return false
	}
	aheadRows, aheadRequests := b.queue.lines[line].ahead(b.key(j, now))
	return free+int64(b.drain(rows+aheadRows, requests+aheadRequests)) > j.deadline
}

// busy is how long it takes until a slot is free.
func (b *Batcher[T]) busy(now int64) int64 {
	if b.idle > 0 {
		return 0
	}
	first := int64(never)
	usual := int64(b.pace.run(b.limit))
	for _, began := range b.started {
		first = min(first, max(0, began+usual-now))
	}
	return first
}

// displace takes out of the queue what is of a lower class than j, the last of the lowest first, until j has room; nil, and nothing is
// taken, if that would not be enough. What has begun to run stays.
func (b *Batcher[T]) displace(j *job, reason Reason) (displaced []Part[T]) {
	if reason == Late {
		return nil
	}
	rows := b.rows() + j.rows - b.limits.MaxQueue
	bytes := b.held + b.bytes[0] + b.bytes[1] + b.bytes[2] + j.bytes - b.limits.MaxBytes
	lowerRows, lowerBytes := 0, 0
	for number := j.class.line() + 1; number < classes; number++ {
		for i := range b.queue.lines[number] {
			if victim := b.queue.lines[number][i].job; victim.whole() {
				lowerRows += victim.rows
				lowerBytes += victim.bytes
			}
		}
	}
	if lowerRows < rows || lowerBytes < bytes {
		return nil
	}
	for number := classes - 1; rows > 0 || bytes > 0; {
		at := b.queue.lines[number].last()
		if at < 0 {
			number--
			continue
		}
		victim := b.queue.remove(number, at)
		rows -= victim.job.rows
		bytes -= victim.job.bytes
		b.leave(victim.job, victim.job.queued)
		displaced = append(displaced, victim)
	}
	return displaced
}
