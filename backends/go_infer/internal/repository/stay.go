package repository

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Stay says for how long a version that was loaded on demand is kept for those who use it, though others wait for its memory. Without it
// models that do not fit into the memory together spend their time on loading each other out: each answers those who waited, and goes.
// The zero value keeps nothing.
type Stay struct {
	Loads float64       // so many times as long as its load took, but no longer than half of what a request waits for a load
	Time  time.Duration // if Loads is 0: so long
}

// DefaultStay has a fifth of the time go into loading at the worst.
var DefaultStay = Stay{Loads: 4}

const (
	mostStayLoads = 1000
	mostStay      = 24 * time.Hour
)

// Set reads "4x", a multiple of the time that a load took, or a duration. It makes Stay a flag.Value.
func (s *Stay) Set(text string) error {
	if number, multiple := strings.CutSuffix(text, "x"); multiple {
		loads, err := strconv.ParseFloat(number, 64)
		if err != nil || math.IsNaN(loads) || loads < 0 || loads > mostStayLoads {
			return fmt.Errorf("it must be 0x..%dx, times the time of a load", mostStayLoads)
		}
		*s = Stay{Loads: loads}
		return nil
	}
	long, err := time.ParseDuration(text)
	if err != nil {
		return errors.New("it is neither a multiple of the time that a load takes, as 4x, nor a time, as 10s")
	}
	if long < 0 || long > mostStay {
		return fmt.Errorf("it must be 0..%s", mostStay)
	}
	*s = Stay{Time: long}
	return nil
}

// String is what Set reads.
func (s Stay) String() string {
	if s.Loads > 0 {
		return strconv.FormatFloat(s.Loads, 'g', -1, 64) + "x"
	}
	return s.Time.String()
}

// of is the stay of a version whose load took so long, where a request waits for wait.
func (s Stay) of(took, wait time.Duration) time.Duration {
	if s.Loads > 0 {
		return min(time.Duration(s.Loads*float64(took)), wait/2)
	}
	return s.Time
}

// stays is until when a loaded version is kept although others wait for its memory; zero: no longer. ends is the end of its stay if it
// goes on being used. It goes earlier if nobody asks for it for as long as its load took: to keep it for somebody who may still come
// would cost the others more than loading it again. That is looked at here, by who waits, so that it costs the requests nothing.
// Called with the lock held for writing.
func (r *Repository) stays(v *version, now time.Time) (until, ends time.Time) {
	if v.used.Load() == onlyCopies {
		return until, ends
	}
	until = v.loaded.Add(r.options.Stay.of(v.took, r.options.LazyWait))
	if used := v.used.Load(); v.idle.IsZero() || used != v.seen || v.lease.holds.Load() > 1 {
		v.seen, v.idle = used, now
	}
	ends = until
	if gone := v.idle.Add(v.took); gone.Before(until) {
		until = gone
	}
	if until.After(now) {
		return until, ends
	}
	return time.Time{}, time.Time{}
}

// retryAfter is when a version that waits for memory may be loaded, as far as that can be told; zero if it does not wait. Called with the
// lock held.
func (r *Repository) retryAfter(v *version, now time.Time) (after time.Duration) {
	for i, other := range r.line {
		if i == 0 {
			after = max(0, other.free.Sub(now))
		}
		after += other.took
		if other == v {
			return max(after, time.Second)
		}
		after += r.options.Stay.of(other.took, r.options.LazyWait)
	}
	return 0
}
