package batch

import (
	"errors"
	"time"
)

// What Do returns when the runner had no part in it. They are values to compare with errors.Is; the API layer words them for its protocol.
var (
	ErrOverloaded = errors.New("the queue is full")
	ErrClosed     = errors.New("the model is shutting down")
	ErrExpired    = errors.New("the deadline passed while the request waited")
	ErrNoRows     = errors.New("the request has no rows")
)

// Reason is why a request was refused before it cost a Run.
type Reason uint8

// The reasons. All but Closing are overload.
const (
	Rows      Reason = iota // the queue is full: Limits.MaxQueue
	Bytes                   // the queue is full: Limits.MaxBytes
	Late                    // it could not have been answered before its deadline
	Displaced               // it waited, and made room for one of a higher class
	Closing
	reasons
)

var reasonNames = [reasons]string{"rows", "bytes", "late", "displaced", "closing"}

// String is the reason as metrics spell it.
func (r Reason) String() string { return reasonNames[r] }

// Reasons are all of them, for metrics.
func Reasons() []Reason { return []Reason{Rows, Bytes, Late, Displaced, Closing} }

// Refusal is a request that was not run. errors.Is says ErrClosed of Closing, and ErrOverloaded of every other reason.
type Refusal struct {
	Reason  Reason
	Waiting int // rows in the queue
	// After is when to come again: what waits now, and what was refused within the last second, would be done by then. So who
	// obeys comes when there is room, also if all the others obey. 0: not known.
	After time.Duration
}

func (r *Refusal) Error() string { return r.kind().Error() }

// Is makes errors.Is work with the values above.
func (r *Refusal) Is(target error) bool { return target == r.kind() }

func (r *Refusal) kind() error {
	if r.Reason == Closing {
		return ErrClosed
	}
	return ErrOverloaded
}

// turned counts the rows that were turned away within about the last second: those of this second of the clock, and of the one before
// by the part of it that is still within. Pure.
type turned struct {
	second    int64
	now, last int
}

func (t *turned) roll(now time.Duration) {
	switch second := int64(now / time.Second); second - t.second {
	case 0:
		return
	case 1:
		t.second, t.last, t.now = second, t.now, 0
	default:
		t.second, t.last, t.now = second, 0, 0
	}
}

func (t *turned) add(now time.Duration, rows int) {
	t.roll(now)
	t.now += rows
}

func (t *turned) rows(now time.Duration) int {
	t.roll(now)
	left := 1 - float64(now%time.Second)/float64(time.Second)
	return t.now + int(float64(t.last)*left)
}
