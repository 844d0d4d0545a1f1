package batch

import "time"

// loads is the member of a Share that loads are; no model has a name with a slash.
const loads = "/loads"

// Turns takes a slot for a while, as a model does that runs, and leaves it for another, over and over until done is closed: who needs a
// processor that saturated models leave to nobody has one for hold of every hold and rest. The wait for a slot is bounded by the Runs
// before it.
func (s *Share) Turns(done <-chan struct{}, hold, rest time.Duration) {
	member, granted := s.Join(loads, 1), make(chan struct{}, 1)
	defer member.Leave()
	for {
		member.acquire(granted)
		began := time.Now()
		ended := pass(done, hold)
		member.release(time.Since(began))
		if ended || pass(done, rest) {
			return
		}
	}
}

// pass lets time pass, and says whether done was closed before it had.
func pass(done <-chan struct{}, length time.Duration) bool {
	timer := time.NewTimer(length)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}
