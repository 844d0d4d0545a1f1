// Package panics counts and logs panics that were stopped, so that a mistake in what one request, one copy for a shadow or one load needs
// costs that one its answer and nobody else anything.
//
// Contract: whoever stops a panic (recover, which only a deferred function itself can call) passes it to Stopped, gives back what the
// part held and refuses with what Stopped returns. What the Go runtime calls fatal (a concurrent map write, no memory) cannot be stopped.
package panics

import (
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"

	"sluicegate/go_infer/internal/status"
)

var count atomic.Int64

// Count is how many panics were stopped since the process began.
func Count() int64 { return count.Load() }

// Stopped counts a panic and logs it with its stack. log may be nil: then slog's default. where says what panicked, and the attributes
// what else is known. What it returns is told to clients: nothing of the reason, which may hold what another client sent.
func Stopped(log *slog.Logger, where string, reason any, attributes ...any) error {
	count.Add(1)
	if log == nil {
		log = slog.Default()
	}
	log.Error(where+" panicked", append([]any{"reason", fmt.Sprint(reason), "stack", string(debug.Stack())}, attributes...)...)
	return status.Errorf(status.Internal, "%s failed by a mistake in this server, which its log tells", where)
}

// Guard calls a part, and turns its panic into an error.
func Guard(log *slog.Logger, where string, part func() error) (err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = Stopped(log, where, reason)
		}
	}()
	return part()
}
