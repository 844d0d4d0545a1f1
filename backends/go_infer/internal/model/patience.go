package model

import (
	"time"

	"sluicegate/go_infer/internal/session"
)

// An overdue load has a Run slot of the machine for hold of every hold and rest.
const (
	hold = 5 * time.Millisecond
	rest = 15 * time.Millisecond
)

// way is by how much the next step of a load gives way.
func (o *Options) way() int {
	if o.Alone != nil && o.Alone() {
		return 0
	}
	return o.Nice
}

// giveWay lets a load give way to serving for as long as Options.Patience, until the result is called. From then on it pauses no more,
// its threads are of normal priority if the system allows that, and it takes turns with the models for a slot.
func (o *Options) giveWay() (end func()) {
	if o.Patience <= 0 {
		return func() {}
	}
	done := make(chan struct{})
	overdue := time.AfterFunc(o.Patience, func() {
		calm, raised := session.Hurry(o.Nice)
		defer calm()
		if o.Overdue != nil {
			o.Overdue(raised)
		}
		if o.Limits.Share != nil {
			o.Limits.Share.Turns(done, hold, rest)
			return
		}
		<-done
	})
	return func() {
		overdue.Stop()
		close(done)
	}
}
