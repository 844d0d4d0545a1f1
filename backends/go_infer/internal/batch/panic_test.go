package batch

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"sluicegate/go_infer/internal/panics"
	"sluicegate/go_infer/internal/status"
)

type clumsy struct{ told chan error }

func (c *clumsy) Ended(err error) func() {
	c.told <- err
	panic("on purpose")
}

func TestAPanicInARunFailsItsRequestsAndNoOthers(t *testing.T) {
	quiet(t)
	fragile := true
	b := New(Limits{MaxBatch: 4, MaxQueue: 8, Slots: 1}, func(int, []Part[*work]) error {
		if fragile {
			fragile = false
			panic("on purpose")
		}
		return nil
	}, unheard{}, time.Now)
	defer b.Close()
	before, first, second := panics.Count(), &work{}, &work{}
	if err := b.Do(context.Background(), first, 2, Options{}); status.From(err).Code != status.Internal {
		t.Errorf("the request whose Run panicked was told %v", err)
	}
	if err := b.Do(context.Background(), second, 2, Options{}); err != nil {
		t.Errorf("the next one was told %v", err)
	}
	if first.holders.Load() != 0 || second.holders.Load() != 0 {
		t.Error("a payload is still held")
	}
	if panics.Count() != before+1 {
		t.Errorf("%d panics are counted, want 1", panics.Count()-before)
	}
}

func TestAPanicOfWhoIsToldKeepsNobodyFromBeingTold(t *testing.T) {
	quiet(t)
	b := New(Limits{MaxBatch: 4, MaxQueue: 8, Slots: 1, Coalesce: true, Delay: time.Hour}, func(int, []Part[*work]) error { return nil },
		unheard{}, time.Now)
	defer b.Close()
	before := panics.Count()
	first, last := &clumsy{make(chan error, 1)}, &waiter{told: make(chan error, 1)}
	last.after = func() { panic("on purpose") }
	for _, w := range []Waiter{first, last} { // in one Run
		if err := b.Start(notify(context.Background()), &work{}, 2, Options{}, w); err != nil {
			t.Fatal(err)
		}
	}
	for _, told := range []chan error{first.told, last.told} {
		select {
		case err := <-told:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("a waiter is not told")
		}
	}
	if err := b.await(context.Background(), &work{}, 4, Options{}); err != nil {
		t.Errorf("after that: %v", err)
	}
	if panics.Count() != before+2 {
		t.Errorf("%d panics are counted, want 2", panics.Count()-before)
	}
}

// unheard are events that nobody hears.
type unheard struct{}

func (unheard) Batch(int, int)    {}
func (unheard) Ran(time.Duration) {}
func (unheard) Dropped(bool)      {}

// quiet has panics on purpose not told.
func quiet(t *testing.T) {
	before := slog.Default()
	slog.SetDefault(slog.New(slog.DiscardHandler))
	t.Cleanup(func() { slog.SetDefault(before) })
}
