package repository

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluicegate/go_infer/internal/modelconfig"
	"sluicegate/go_infer/internal/status"
)

// lazy is a stage of lazy models, one version each, of 1,200 bytes as reckoned.
func lazy(t *testing.T, options Options, names ...string) *stage {
	options.Lazy = true
	if options.LazyWait == 0 {
		options.LazyWait = 5 * time.Second
	}
	s := newStage(t, options)
	var models []modelconfig.Model
	for _, name := range names {
		s.put(name, 1, "")
		models = append(models, s.config(name, modelconfig.Policy{}, nil))
	}
	must(t, s.reload(models...))
	return s
}

// A request that came while its version was being unloaded, or whose version was evicted before it woke, was never asked for again.
func TestNobodyWaitsInVainWhileModelsTakeEachOthersPlace(t *testing.T) {
	names := []string{"a", "b", "c"}
	s := lazy(t, Options{Budget: 1500}, names...) // one at a time
	var group sync.WaitGroup
	var asked atomic.Int64
	end := time.Now().Add(time.Second)
	for client := range 18 {
		group.Go(func() {
			for time.Now().Before(end) {
				lease, err := s.Acquire(context.Background(), names[client%3], Wanted{})
				if err != nil {
					t.Error(err)
					return
				}
				asked.Add(1)
				time.Sleep(time.Millisecond)
				lease.Release()
			}
		})
	}
	group.Wait()
	if asked.Load() < 18*3 {
		t.Errorf("only %d requests in a second", asked.Load())
	}
	if s.Memory() > 1500 {
		t.Errorf("%d bytes are taken", s.Memory())
	}
}

func TestWhoComesWhileAVersionIsUnloadedGetsItLoadedAgain(t *testing.T) {
	s := lazy(t, Options{Budget: 1500}, "a", "b")
	var group sync.WaitGroup
	t.Cleanup(group.Wait)
	release := s.hold("a")
	group.Go(func() { s.answers("b", Wanted{}, 1) })
	s.eventually("a", "1 UNLOADING")
	group.Go(func() { s.answers("a", Wanted{}, 1) })
	for ctx, waiting := soon(t), false; !waiting; time.Sleep(time.Millisecond) {
		must(t, ctx.Err())
		s.mu.RLock()
		waiting = s.models["a"].version(1).waiters == 1
		s.mu.RUnlock()
	}
	release()
	group.Wait()
}

func TestAVersionThatIsLongInUseHoldsUpOnlyWhoNeedsItsPlace(t *testing.T) {
	s := lazy(t, Options{Budget: 2500, LazyWait: 100 * time.Millisecond}, "a", "b", "c") // two of them
	must(t, os.Truncate(filepath.Join(s.base, "b/1/weights"), 2000))                     // b alone takes both places
	release := s.hold("a")
	s.refuses("b", Wanted{}, status.Unavailable, "still loading")
	s.eventually("a", "1 UNLOADING")
	s.put("d", 1, "")
	must(t, os.Truncate(filepath.Join(s.base, "d/1/weights"), 50))
	must(t, s.reload(s.config("a", modelconfig.Policy{}, nil), s.config("b", modelconfig.Policy{}, nil), s.config("c", modelconfig.Policy{}, nil),
		s.config("d", modelconfig.Policy{}, nil)))
	s.answers("d", Wanted{}, 1)
	release()
	s.answers("b", Wanted{}, 1)
}

func TestThoseWhoNeedRoomGetItInTurn(t *testing.T) {
	var names []string
	for i := range 12 {
		names = append(names, fmt.Sprint("m", i))
	}
	s := lazy(t, Options{Budget: 2500, Loads: 2}, names...)
	var group sync.WaitGroup
	for range 3 {
		for _, name := range names {
			group.Go(func() { s.answers(name, Wanted{}, 1) })
		}
	}
	group.Wait()
	if s.Memory() > 2500 {
		t.Errorf("%d bytes are taken", s.Memory())
	}
}

func TestWhatIsInUseIsUnloadedLast(t *testing.T) {
	s := lazy(t, Options{Budget: 2500}, "a", "b", "c")
	s.hold("a")
	s.answers("b", Wanted{}, 1) // a was used less recently
	s.answers("c", Wanted{}, 1)
	s.eventually("a", "1 AVAILABLE")
	s.eventually("b", "1 START")
}

func TestANewVersionOfALazyModelTakesOverOnlyWhenItIsLoaded(t *testing.T) {
	s := lazy(t, Options{}, "m")
	s.answers("m", Wanted{}, 1)
	s.put("m", 2, "truncated")
	for s.loads.Load() < 2 { // it is tried without anybody asking
		time.Sleep(time.Millisecond)
	}
	s.eventually("m", "2 START, 1 AVAILABLE")
	s.answers("m", Wanted{}, 1)
	s.refuses("m", Wanted{Version: 2}, status.Unavailable, "truncated")
	s.answers("m", Wanted{}, 1)
	must(t, os.Remove(filepath.Join(s.base, "m/2/bad")))
	s.answers("m", Wanted{}, 1)
	s.put("m", 3, "")
	s.eventually("m", "3 AVAILABLE, 2 END, 1 END")
	s.answers("m", Wanted{}, 3)
}

func TestALazyModelFallsBackIfItsNewVersionIsBroken(t *testing.T) {
	t.Run("and took its place in memory", func(t *testing.T) {
		s := lazy(t, Options{Budget: 1500}, "m")
		s.answers("m", Wanted{}, 1)
		s.put("m", 2, "truncated")
		for s.loads.Load() < 2 {
			time.Sleep(time.Millisecond)
		}
		s.answers("m", Wanted{}, 1)
	})
	t.Run("and came while it was unloaded", func(t *testing.T) {
		s := lazy(t, Options{Budget: 1500}, "m", "other")
		s.answers("m", Wanted{}, 1)
		s.answers("other", Wanted{}, 1)
		s.eventually("m", "1 START")
		s.put("m", 2, "truncated")
		s.eventually("m", "2 START, 1 START")
		s.answers("m", Wanted{}, 1)
	})
}

func TestALabelOfALazyModelLoadsWhatItPointsAt(t *testing.T) {
	s := newStage(t, Options{Lazy: true, LazyWait: 5 * time.Second})
	for number := 1; number <= 3; number++ {
		s.put("m", number, "")
	}
	must(t, s.reload(s.config("m", modelconfig.Policy{All: true}, map[string]int64{"stable": 1, "none": 9})))
	s.answers("m", Wanted{Label: "stable"}, 1)
	s.refuses("m", Wanted{Label: "none"}, status.InvalidArgument, "Unrecognized servable version label: none")
	must(t, s.reload(s.config("m", modelconfig.Policy{All: true}, map[string]int64{"stable": 2})))
	s.answers("m", Wanted{Label: "stable"}, 2)
}

func TestTheLatestOfLazyVersionsIsNotTheOneThatHappensToBeLoaded(t *testing.T) {
	s := newStage(t, Options{Lazy: true, LazyWait: 5 * time.Second})
	s.put("m", 1, "")
	s.put("m", 2, "")
	must(t, s.reload(s.config("m", modelconfig.Policy{All: true}, nil)))
	s.answers("m", Wanted{Version: 1}, 1)
	s.answers("m", Wanted{}, 2)
}

func TestALazyModelIsRolledBackToAVersionThatIsNotLoaded(t *testing.T) {
	s := newStage(t, Options{Lazy: true, LazyWait: 5 * time.Second})
	s.put("m", 1, "")
	s.put("m", 2, "")
	must(t, s.reload(s.config("m", modelconfig.Policy{All: true}, nil)))
	s.answers("m", Wanted{}, 2)
	gate := make(chan struct{})
	s.gate.Store(&gate)
	_, _, err := s.Rollback(soon(t), "m")
	must(t, err)
	s.eventually("m", "2 AVAILABLE, 1 LOADING") // unasked
	s.answers("m", Wanted{}, 2)                 // until it is loaded
	close(gate)
	s.eventually("m", "2 END, 1 AVAILABLE")
	s.answers("m", Wanted{}, 1)
}

func TestSmallModelsDoNotStarveALargeOne(t *testing.T) {
	s := lazy(t, Options{Budget: 2500, LazyWait: 10 * time.Second}, "a", "b", "large")
	must(t, os.Truncate(filepath.Join(s.base, "large/1/weights"), 2000)) // 2,400 as reckoned: all of it
	var group sync.WaitGroup
	done := make(chan struct{})
	for _, name := range []string{"a", "b"} {
		for range 3 {
			group.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
						s.answers(name, Wanted{}, 1)
					}
				}
			})
		}
	}
	for range 20 {
		s.answers("large", Wanted{}, 1)
	}
	close(done)
	group.Wait()
}
