package repository

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"
)

// Who waits for what is first in line is told when a claim is given up, though nothing else changes then.
func TestAClaimThatIsGivenUpMakesRoomForWhoWaitsLonger(t *testing.T) {
	r := New(Options{Budget: 100, Lazy: true})
	add := func(name string, v *version) *served {
		m := &served{name: name, versions: []*version{v}, wake: make(chan struct{}, 1)}
		r.models[name] = m
		return m
	}
	shadow := &version{bytes: 50, state: Loading, modest: true}
	first := &version{aspired: true, wanted: true, since: time.Now().Add(-time.Minute)}
	second := &version{aspired: true, wanted: true, since: time.Now()}
	add("shadow", shadow)
	a, b := add("first", first), add("second", second)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	is := func(condition func() bool) {
		t.Helper()
		for ; ctx.Err() == nil; time.Sleep(time.Millisecond) {
			r.mu.RLock()
			met := condition()
			r.mu.RUnlock()
			if met {
				return
			}
		}
		t.Fatal("it does not come to that")
	}
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	group.Go(func() { _, _ = r.room(ctx, b, second, 50) }) // needs 60, once the shadow is gone
	is(func() bool { return second.claim == 60 })
	made := make(chan bool, 1)
	group.Go(func() {
		got, _ := r.room(ctx, a, first, 42) // needs 50
		made <- got
	})
	is(func() bool { return slices.Contains(r.line, first) && a.stuck == a.looked })
	r.mu.Lock()
	shadow.modest = false // it stays
	b.wake <- struct{}{}  // and it is the second who sees that last
	r.mu.Unlock()
	is(func() bool { return slices.Contains(r.line, second) || second.claim == 0 })
	if !<-made {
		t.Error("there is room for the first beside what was the shadow, and nobody told it")
	}
}
