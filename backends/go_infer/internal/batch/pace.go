package batch

import (
	"math/bits"
	"time"
)

// pace is how long Runs take, by their size, in classes of powers of two. It is a running median: each Run moves the figure of its size
// by a sixteenth towards what it took. So one Run that the machine slept through moves it as little as any other, and a model that has
// become ten times slower is known after 40 Runs. Pure: no clock, no lock.
type pace struct {
	times [33]time.Duration // 0: not known
}

const paceStep = 16

func (p *pace) learn(rows int, took time.Duration) {
	at := &p.times[bits.Len(uint(max(rows, 1)-1))]
	step := *at / paceStep
	switch {
	case *at == 0:
		*at = max(took, 1)
	case took > *at+step:
		*at += max(step, 1)
	case took < *at-step:
		*at -= step
	default:
		*at = max(took, 1)
	}
}

// run is how long a Run of so many rows takes: as long as one of the nearest size that is known, the larger first; 0 if none is.
func (p *pace) run(rows int) time.Duration {
	class := bits.Len(uint(max(rows, 1) - 1))
	for _, known := range p.times[class:] {
		if known > 0 {
			return known
		}
	}
	for class--; class >= 0; class-- {
		if p.times[class] > 0 {
			return p.times[class]
		}
	}
	return 0
}

// rows is how long so many rows take in batches of at most limit rows, with so many slots.
func (p *pace) rows(rows, limit, slots int) time.Duration {
	if rows <= 0 {
		return 0
	}
	batches := (rows + limit - 1) / limit
	if batches == 1 {
		return p.run(rows)
	}
	waves := (batches + slots - 1) / slots
	return time.Duration(waves) * p.run(limit)
}
