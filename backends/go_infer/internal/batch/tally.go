package batch

import "sync/atomic"

// Tally is what became of the requests that came: each ends as exactly one, so that
//
//	Received = Answered + Failed + Refused + Expired + Cancelled + those that are under way.
type Tally struct {
	Received  int64
	Answered  int64
	Failed    int64 // the Run failed
	Expired   int64 // its deadline passed before it was answered
	Cancelled int64 // its client left before it was answered
	Refused   [reasons]int64

	// Wasted are the rows that a slot had taken to run when their client left: a Run under way cannot be interrupted. So every row
	// that was run is one of an answered or a failed request, or wasted; none was for nobody when it was taken.
	Wasted int64
}

// Plus is the sum of two tallies.
func (t Tally) Plus(o Tally) Tally {
	t.Received += o.Received
	t.Answered += o.Answered
	t.Failed += o.Failed
	t.Expired += o.Expired
	t.Cancelled += o.Cancelled
	for i := range t.Refused {
		t.Refused[i] += o.Refused[i]
	}
	t.Wasted += o.Wasted
	return t
}

// Ended is how many requests have got their answer, of whatever kind.
func (t Tally) Ended() int64 {
	sum := t.Answered + t.Failed + t.Expired + t.Cancelled
	for _, refused := range t.Refused {
		sum += refused
	}
	return sum
}

type tally struct {
	received, answered, failed, expired, cancelled atomic.Int64
	refused                                        [reasons]atomic.Int64
	wasted                                         atomic.Int64
}

// read reads the ends before the beginnings, so that no request is seen to have ended that has not begun.
func (t *tally) read() Tally {
	now := Tally{
		Answered: t.answered.Load(), Failed: t.failed.Load(), Expired: t.expired.Load(), Cancelled: t.cancelled.Load(),
		Wasted: t.wasted.Load(),
	}
	for i := range t.refused {
		now.Refused[i] = t.refused[i].Load()
	}
	now.Received = t.received.Load()
	return now
}
