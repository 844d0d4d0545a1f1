package repository

import (
	"sync/atomic"

	"sluicegate/go_infer/internal/model"
)

// Wanted says which version a request asks for. The zero value asks for what the policy says.
type Wanted struct {
	Version int64  // 0: none in particular, unless Exact
	Label   string // "": none
	Exact   bool   // Version is meant, even if it is 0
}

func (w Wanted) specific() bool { return w.Exact || w.Version != 0 }

// Lease is a loaded version in use: as long as somebody holds it, the model's memory stays.
//
// There is one Lease for each loaded version, and every Acquire adds a hold to it, so that a request allocates nothing. The
// repository's own hold ends when the version is taken out of service; the last one to leave lets it be freed.
type Lease struct {
	Model *model.Model

	holds atomic.Int64
	left  chan struct{} // closed with the last hold
}

func newLease(m *model.Model) *Lease {
	l := &Lease{Model: m, left: make(chan struct{})}
	l.holds.Store(1)
	return l
}

// Release gives the hold back: once for every Acquire.
func (l *Lease) Release() {
	switch holds := l.holds.Add(-1); {
	case holds == 0:
		close(l.left)
	case holds < 0:
		panic("repository: a lease was released more often than acquired")
	}
}
