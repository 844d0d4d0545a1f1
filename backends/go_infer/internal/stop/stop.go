// Package stop is what every listener of a server that drains goes by: how long requests may still arrive, and what who reads one is told
// when they may no longer.
package stop

import (
	"context"
	"errors"
	"time"
)

// ErrArriving ends the reading of a request that has not arrived when the server has to stop. It is refused with UNAVAILABLE.
var ErrArriving = errors.New("the server stops, and the request had not arrived; send it again")

// reserve is what is left of a drain's time for refusing what has not arrived: at most so long, and at most a quarter.
const reserve = time.Second

// Cutoff is when requests that have not arrived are given up, of a drain that must end with ctx; zero: never.
func Cutoff(ctx context.Context) time.Time {
	deadline, bounded := ctx.Deadline()
	if !bounded {
		return time.Time{}
	}
	return deadline.Add(-min(reserve, max(0, time.Until(deadline)/4)))
}

// Timer fires at the Cutoff of ctx; end is to be called.
func Timer(ctx context.Context) (fires <-chan time.Time, end func() bool) {
	at := Cutoff(ctx)
	if at.IsZero() {
		return nil, func() bool { return false }
	}
	timer := time.NewTimer(time.Until(at))
	return timer.C, timer.Stop
}
