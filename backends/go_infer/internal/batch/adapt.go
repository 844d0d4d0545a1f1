package batch

import "time"

// adapter makes batches as large as a target for the time of a Run allows: additive increase, multiplicative decrease (D. Chiu and
// R. Jain 1989). Pure: time comes in as an argument.
//
// It judges rounds of Runs that were as large as it allows: the other ones say nothing about the size. A round ends with a decrease to
// three quarters as soon as slowOf of its Runs took longer than the target, and else with an increase after roundOf Runs, of one row
// or a sixty-fourth of the largest. One slow Run, which any machine has now and then, decides nothing.
//
// The bound that was too slow last is remembered, and tried again after probeRuns Runs and probeEvery at the earliest: sizes that are too
// large so make less than one Run of a hundred, and the target holds for p99.
type adapter struct {
	target  time.Duration
	largest int
	bound   int           // rows, 1 to largest
	slow    int           // Runs of this round over the target
	runs    int           // Runs of this round
	failed  int           // the least bound that was too slow of late; 0: none
	since   time.Duration // when that was
	quick   int           // Runs since
}

const (
	roundOf    = 32
	slowOf     = 4
	probeEvery = time.Second
	probeRuns  = 150 * slowOf
)

func newAdapter(target time.Duration, largest int) adapter {
	return adapter{target: target, largest: largest, bound: largest}
}

// observe learns from a Run of so many rows, of at most allowed, that ended at now, and returns the new bound.
func (a *adapter) observe(now time.Duration, rows, allowed int, took time.Duration) int {
	if a.target == 0 {
		return a.bound
	}
	over := took > a.target
	if 4*rows < 3*allowed && !over { // a small batch that is quick says nothing of large ones
		return a.bound
	}
	a.runs++
	a.quick++
	if over {
		a.slow++
	}
	switch {
	case a.slow >= slowOf:
		a.failed, a.since, a.quick = a.bound, now, 0
		a.bound = max(1, min(a.bound, allowed)*3/4)
		a.slow, a.runs = 0, 0
	case a.runs >= roundOf:
		a.slow, a.runs = 0, 0
		next := min(a.largest, a.bound+max(1, a.largest/64))
		if a.failed > 0 && next >= a.failed {
			if now-a.since < probeEvery || a.quick < probeRuns {
				return a.bound
			}
			a.failed = 0 // the world may have changed
		}
		a.bound = next
	}
	return a.bound
}
