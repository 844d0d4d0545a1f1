package repository

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluicegate/go_infer/internal/status"
)

// waiting polls until so many requests wait for version 1 of a model.
func (s *stage) waiting(name string, requests int) {
	s.t.Helper()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		s.mu.RLock()
		v := s.models[name].version(1)
		there := v != nil && v.waiters == requests && (slices.Contains(s.line, v) || requests == 0)
		s.mu.RUnlock()
		if there {
			return
		}
	}
	s.t.Errorf("not %d requests wait for %s", requests, name)
}

// use asks for a model again and again until it is told to stop.
func (s *stage) use(name string) (stop func()) {
	done, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		for {
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
				s.answers(name, Wanted{}, 1)
			}
		}
	}()
	return func() { close(done); <-gone }
}

func (s *stage) loadedAt(name string) time.Time {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.models[name].version(1).loaded
}

func TestAVersionJustLoadedStaysWhileItIsUsed(t *testing.T) {
	const load = 20 * time.Millisecond
	for name, c := range map[string]struct {
		stay        Stay
		wait        time.Duration
		used        bool
		least, most time.Duration // after a was loaded b's load may begin
	}{
		"as many times as its load took":      {Stay{Loads: 10}, 10 * time.Second, true, 10 * load, 9 * time.Second},
		"for a time":                          {Stay{Time: 150 * time.Millisecond}, 10 * time.Second, true, 150 * time.Millisecond, 9 * time.Second},
		"for half of what a request waits":    {Stay{Loads: 1000}, 2 * time.Second, true, time.Second, 2 * time.Second},
		"no longer than a load if it is idle": {Stay{Time: 9 * time.Second}, 10 * time.Second, false, 0, 5 * time.Second},
		"not at all":                          {Stay{}, 10 * time.Second, false, 0, 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			s := lazy(t, Options{Budget: 1500, LazyWait: c.wait, Stay: c.stay}, "a", "b")
			s.slow.Store(int64(load))
			s.answers("a", Wanted{}, 1)
			loaded := s.loadedAt("a")
			if c.used {
				stop := s.use("a")
				defer stop()
			}
			s.answers("b", Wanted{}, 1)
			if after := s.loadedAt("b").Add(-load).Sub(loaded); after < c.least || after > c.most {
				t.Errorf("b was loaded %s after a, want %s to %s", after, c.least, c.most)
			}
		})
	}
}

func TestModelsThatTakeEachOthersPlaceAnswerMoreThanThoseWhoWaited(t *testing.T) {
	names := []string{"a", "b", "c"}
	s := lazy(t, Options{Budget: 1500, Stay: Stay{Loads: 4}}, names...)
	s.slow.Store(int64(20 * time.Millisecond))
	var group sync.WaitGroup
	answered := make([]int, 6)
	end := time.Now().Add(time.Second)
	for client := range answered {
		group.Go(func() {
			for ; time.Now().Before(end); answered[client]++ {
				s.answers(names[client%3], Wanted{}, 1)
				time.Sleep(time.Millisecond)
			}
		})
	}
	group.Wait()
	sum := 0
	for client, n := range answered {
		sum += n
		if n == 0 {
			t.Errorf("client %d got no answer", client)
		}
	}
	if loads := int(s.loads.Load()); sum < 20*loads {
		t.Errorf("%d answers for %d loads", sum, loads)
	}
}

func TestWhoWaitsWhileAVersionStaysIsToldWhenToComeAgain(t *testing.T) {
	s := lazy(t, Options{Budget: 1500, LazyWait: 50 * time.Millisecond, Stay: Stay{Time: time.Hour}}, "a", "b")
	s.hold("a")
	lease, err := s.Acquire(soon(t), "b", Wanted{})
	if lease != nil || status.From(err).Code != status.Unavailable || !strings.Contains(err.Error(), "still loading: Latest(b); it waits for memory") {
		t.Fatal(lease, err)
	}
	if after := status.From(err).RetryAfter; after < 50*time.Minute || after > time.Hour {
		t.Errorf("come again after %s", after)
	}
	s.eventually("a", "1 AVAILABLE")
}

func TestWhoWaitsLongestForRoomComesNext(t *testing.T) {
	s := lazy(t, Options{Budget: 1500, LazyWait: 10 * time.Second, Stay: Stay{Time: time.Second}}, "a", "b", "c")
	s.slow.Store(int64(20 * time.Millisecond))
	s.answers("a", Wanted{}, 1)
	stop := s.use("a")
	var group sync.WaitGroup
	for _, name := range []string{"b", "c"} {
		group.Go(func() { s.answers(name, Wanted{}, 1) })
		s.waiting(name, 1)
	}
	s.mu.Lock()
	s.models["b"].look() // b leaves the line, and comes again
	s.mu.Unlock()
	again := func() bool {
		s.mu.RLock()
		defer s.mu.RUnlock()
		return s.models["b"].stuck == s.models["b"].asked
	}
	for end := time.Now().Add(5 * time.Second); !again() && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	stop()
	group.Wait()
	if b, c := s.loadedAt("b"), s.loadedAt("c"); c.Before(b) {
		t.Errorf("c was loaded %s before b", b.Sub(c))
	}
}

func TestNothingGoesForALargeModelBeforeAllOfItsPlaceMay(t *testing.T) {
	s := lazy(t, Options{Budget: 2500, LazyWait: 10 * time.Second, Stay: Stay{Time: 300 * time.Millisecond}}, "a", "b", "large")
	must(t, os.Truncate(filepath.Join(s.base, "large/1/weights"), 2000)) // it takes both places
	s.slow.Store(int64(20 * time.Millisecond))
	s.answers("a", Wanted{}, 1)
	time.Sleep(150 * time.Millisecond)
	s.answers("b", Wanted{}, 1)
	stop := s.use("b")
	until := s.loadedAt("b").Add(300 * time.Millisecond)
	var group sync.WaitGroup
	group.Go(func() { s.answers("large", Wanted{}, 1) })
	s.waiting("large", 1)
	for time.Now().Before(until.Add(-20 * time.Millisecond)) {
		if s.Versions("a")[0].State != Available && time.Now().Before(until) {
			t.Fatal("a went, and its place was of no use")
		}
		time.Sleep(time.Millisecond)
	}
	stop()
	group.Wait()
}

func TestAWaitThatNobodyWaitsForAnyMoreKeepsItsTurn(t *testing.T) {
	s := lazy(t, Options{Budget: 1500, LazyWait: 10 * time.Second, Stay: Stay{Time: 100 * time.Millisecond}}, "a", "b")
	s.slow.Store(int64(10 * time.Millisecond))
	s.answers("a", Wanted{}, 1)
	stop := s.use("a")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if lease, err := s.Acquire(ctx, "b", Wanted{}); lease != nil || status.From(err).Code != status.DeadlineExceeded {
		t.Fatal(lease, err)
	}
	stop()
	s.eventually("b", "1 AVAILABLE")
	s.eventually("a", "1 START")
}

func TestAStayIsReadAndWritten(t *testing.T) {
	for text, want := range map[string]Stay{
		"4x": {Loads: 4}, "0.5x": {Loads: .5}, "1000x": {Loads: 1000}, "0x": {}, "0": {}, "10s": {Time: 10 * time.Second}, "24h": {Time: 24 * time.Hour},
	} {
		var got, again Stay
		if err := got.Set(text); err != nil || got != want {
			t.Errorf("%s: %+v %v", text, got, err)
		}
		if err := again.Set(got.String()); err != nil || again != got {
			t.Errorf("%s: written as %s: %+v %v", text, got, again, err)
		}
	}
	for text, says := range map[string]string{
		"": "neither", "4": "neither", "x": "0x..1000x", "-1x": "0x..1000x", "1001x": "0x..1000x", "NaNx": "0x..1000x", "-1s": "0..24h", "24h1s": "0..24h",
	} {
		s := Stay{Loads: 3}
		if err := s.Set(text); err == nil || !strings.Contains(err.Error(), says) || s != (Stay{Loads: 3}) {
			t.Errorf("%q: %+v %v", text, s, err)
		}
	}
}
