package model

import (
	"context"
	"time"

	"sluicegate/go_infer/internal/batch"
)

// Overloaded refuses a request before its body is read, if whatever signature it may name has no room for it, or cannot answer it before
// the deadline of ctx; nil: go on. It costs next to nothing while nothing waits, needs none of the model's memory, and so no lease.
func (m *Model) Overloaded(ctx context.Context, class batch.Class) error {
	deadline, _ := ctx.Deadline()
	var last *Servable
	var why batch.Reason
	for _, servable := range m.Signatures {
		reason, hopeless := servable.hopeless(class, deadline)
		if !hopeless {
			return nil
		}
		last, why = servable, reason
	}
	if last == nil {
		return nil
	}
	return last.turnAway(why)
}

// Overloaded is Model.Overloaded for a request that has named its signature, before its tensors are read.
func (s *Servable) Overloaded(ctx context.Context, class batch.Class) error {
	deadline, _ := ctx.Deadline()
	if why, hopeless := s.hopeless(class, deadline); hopeless {
		return s.turnAway(why)
	}
	return nil
}

// turnAway counts a request that is refused before its tensors were there, everywhere as one that was refused after.
func (s *Servable) turnAway(why batch.Reason) error {
	if s.runner != nil && s.runner.statistics != nil {
		s.runner.statistics.Refused()
	}
	return s.explain(s.batcher.TurnAway(why))
}

func (s *Servable) hopeless(class batch.Class, deadline time.Time) (batch.Reason, bool) {
	if s.batcher == nil { // it is refused for another reason
		return 0, false
	}
	return s.batcher.Hopeless(class, deadline)
}
