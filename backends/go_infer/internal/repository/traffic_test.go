package repository

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/modelconfig"
	"sluicegate/go_infer/internal/status"
)

// Shares and shadows of lazy models, whose versions come when they are asked for.

func lazyTraffic(t *testing.T, options Options, traffic modelconfig.Traffic, others ...string) *stage {
	options.Lazy, options.LazyWait = true, 10*time.Second
	s := newStage(t, options)
	for number := 1; number <= 3; number++ {
		s.put("m", number, "")
	}
	traffic.Model = "m"
	config := modelconfig.Config{
		Models:  []modelconfig.Model{s.config("m", modelconfig.Policy{All: true}, map[string]int64{"stable": 1})},
		Traffic: []modelconfig.Traffic{traffic},
	}
	for _, name := range others {
		s.put(name, 1, "")
		config.Models = append(config.Models, s.config(name, modelconfig.Policy{}, nil))
	}
	must(t, s.Reload(soon(t), config))
	return s
}

func TestSharesOfALazyModelAreLoadedAndGetTheirPart(t *testing.T) {
	s := lazyTraffic(t, Options{}, modelconfig.Traffic{Split: []modelconfig.Share{{Label: "stable", Weight: 50}, {Version: 2, Weight: 50}, {Version: 9, Weight: 900}}})
	s.eventually("m", "3 START, 2 START, 1 START")
	s.slow.Store(int64(20 * time.Millisecond))
	var group sync.WaitGroup
	var got [4]atomic.Int64
	for range 400 { // all at once: none of them is loaded yet
		group.Go(func() {
			lease, err := s.Acquire(soon(t), "m", Wanted{})
			if err != nil {
				t.Error(err)
				return
			}
			got[lease.Model.Version].Add(1)
			lease.Release()
		})
	}
	group.Wait()
	if one, two := got[1].Load(), got[2].Load(); one < 140 || two < 140 || one+two != 400 {
		t.Errorf("version 1 answered %d of 400 and version 2 %d, want about half each", one, two)
	}
	s.eventually("m", "3 START, 2 AVAILABLE, 1 AVAILABLE") // 3 has no share
}

func TestAShareOfALazyModelThatCannotBeLoadedCostsNobodyAnAnswer(t *testing.T) {
	s := newStage(t, Options{Lazy: true, LazyWait: 10 * time.Second})
	s.put("m", 1, "")
	s.put("m", 2, "truncated")
	must(t, s.Reload(soon(t), modelconfig.Config{
		Models:  []modelconfig.Model{s.config("m", modelconfig.Policy{All: true}, nil)},
		Traffic: []modelconfig.Traffic{{Model: "m", Split: []modelconfig.Share{{Version: 1, Weight: 1}, {Version: 2, Weight: 1}}}},
	}))
	for range 50 {
		s.answers("m", Wanted{}, 1)
	}
	if s.loads.Load() < 2 {
		t.Error("version 2 was never tried")
	}
}

// shadow is what a copy of a request for m gets.
func (s *stage) shadow() (*model.Model, func()) {
	s.mu.RLock()
	m := s.models["m"]
	s.mu.RUnlock()
	return s.shadowed(m, nil)
}

// copied is a request that is copied to the shadow, if that is loaded: it may be loaded any moment.
func (s *stage) copied() {
	if _, release := s.shadow(); release != nil {
		release()
	}
}

func TestAShadowOfALazyModelIsLoadedWhileCopiesAreSkipped(t *testing.T) {
	var skipped atomic.Int64
	options := Options{Shadowed: func(_ string, outcome model.Outcome) {
		if outcome == model.Skipped {
			skipped.Add(1)
		}
	}}
	s := lazyTraffic(t, options, modelconfig.Traffic{Shadow: &modelconfig.Share{Label: "stable", Weight: 100}})
	gate := make(chan struct{})
	s.answers("m", Wanted{}, 3)
	s.gate.Store(&gate)
	if shadow, _ := s.shadow(); shadow != nil {
		t.Fatal("the shadow is loaded, and nobody has asked for it")
	}
	s.eventually("m", "3 AVAILABLE, 2 START, 1 LOADING")
	began := time.Now()
	for range 100 { // none of them waits
		if shadow, _ := s.shadow(); shadow != nil {
			t.Fatal("a version answers that is being loaded")
		}
		s.answers("m", Wanted{}, 3)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("100 requests took %s while their shadow was loaded", took)
	}
	close(gate)
	s.eventually("m", "3 AVAILABLE, 2 START, 1 AVAILABLE")
	shadow, release := s.shadow()
	if shadow == nil || shadow.Version != 1 {
		t.Fatalf("the shadow is %+v", shadow)
	}
	release()
	if skipped.Load() != 101 {
		t.Errorf("%d copies are said to have been skipped, want 101", skipped.Load())
	}
}

func TestAShadowTakesNoMemoryThatOthersUse(t *testing.T) {
	s := lazyTraffic(t, Options{Budget: 2500}, modelconfig.Traffic{Shadow: &modelconfig.Share{Version: 1, Weight: 100}}, "other")
	s.answers("m", Wanted{}, 3)
	s.answers("other", Wanted{}, 1)
	for range 3 {
		s.later()
		if shadow, _ := s.shadow(); shadow != nil {
			t.Fatal("there is no room for the shadow")
		}
		s.settled("m")
	}
	if s.loads.Load() != 2 {
		t.Errorf("%d loads, want those of the two that serve", s.loads.Load())
	}
	s.eventually("m", "3 AVAILABLE, 2 START, 1 START")
	s.eventually("other", "1 AVAILABLE")
}

// later is as if a second had gone since the shadow of m was asked for.
func (s *stage) later() { s.models["m"].shaded.Store(0) }

// settled polls until what was asked for copies before has become of it: version 1 is loaded, or was given up. It holds at no moment
// between: the word that shadow leaves is there when it returns, and is taken in the step that makes the version wanted.
func (s *stage) settled(name string) {
	s.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		s.mu.RLock()
		m := s.models[name]
		settled := !m.shade.Load() && !m.version(1).modest
		s.mu.RUnlock()
		if settled {
			return
		}
	}
	s.t.Fatal("the shadow is still wanted")
}

func TestAShadowThatIsBeingLoadedPushesNobodyOut(t *testing.T) {
	s := lazyTraffic(t, Options{Budget: 2500, Loads: 2}, modelconfig.Traffic{Shadow: &modelconfig.Share{Version: 1, Weight: 100}}, "other")
	s.answers("m", Wanted{}, 3)
	open := s.shut()
	s.copied()
	s.eventually("m", "3 AVAILABLE, 2 START, 1 LOADING")
	var group sync.WaitGroup
	group.Go(func() { s.answers("other", Wanted{}, 1) })
	s.claims("other") // the memory of the shadow, which has it until it is loaded
	s.answers("m", Wanted{Version: 3, Exact: true}, 3)
	s.eventually("m", "3 AVAILABLE, 2 START, 1 LOADING")
	open()
	group.Wait()
	s.eventually("m", "3 AVAILABLE, 2 START, 1 START")
	s.eventually("other", "1 AVAILABLE")
	if s.loads.Load() != 3 {
		t.Errorf("%d loads, want one each: what serves was loaded again", s.loads.Load())
	}
}

func TestAShadowThatSomebodyAsksForWhileItIsLoadedNoLongerMakesRoom(t *testing.T) {
	s := lazyTraffic(t, Options{Budget: 2500, Loads: 2}, modelconfig.Traffic{Shadow: &modelconfig.Share{Version: 1, Weight: 100}}, "other")
	s.answers("m", Wanted{}, 3)
	open := s.shut()
	s.copied()
	s.eventually("m", "3 AVAILABLE, 2 START, 1 LOADING")
	var group sync.WaitGroup
	group.Go(func() { s.answers("other", Wanted{}, 1) })
	s.claims("other")
	group.Go(func() { s.answers("m", Wanted{Version: 1, Exact: true}, 1) })
	s.eventually("m", "3 START, 2 START, 1 LOADING") // it is the one that nobody waits for
	open()
	group.Wait()
	s.eventually("m", "3 START, 2 START, 1 AVAILABLE")
	s.eventually("other", "1 AVAILABLE")
}

// shut has loads wait until open is called, or the test ends.
func (s *stage) shut() (open func()) {
	gate := make(chan struct{})
	s.gate.Store(&gate)
	open = sync.OnceFunc(func() { close(gate) })
	s.t.Cleanup(open) // before the repository is closed, which waits for loads
	return open
}

// claims polls until version 1 of a model waits for memory that will be free.
func (s *stage) claims(name string) {
	s.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		s.mu.RLock()
		claim := s.models[name].version(1).claim
		s.mu.RUnlock()
		if claim > 0 {
			return
		}
	}
	s.t.Fatalf("%s claims nothing", name)
}

func TestAShadowIsTheFirstToMakeRoom(t *testing.T) {
	s := lazyTraffic(t, Options{Budget: 2500, Stay: Stay{Time: time.Hour}}, modelconfig.Traffic{Shadow: &modelconfig.Share{Version: 1, Weight: 100}}, "other")
	s.answers("m", Wanted{}, 3)
	s.copied()
	s.eventually("m", "3 AVAILABLE, 2 START, 1 AVAILABLE")
	shadow, release := s.shadow()
	if shadow == nil {
		t.Fatal("the shadow is not loaded")
	}
	release()
	s.answers("other", Wanted{}, 1)
	s.eventually("m", "3 AVAILABLE, 2 START, 1 START")
}

func TestAShadowWaitsForNoPlaceThatOthersLoadIn(t *testing.T) {
	s := lazyTraffic(t, Options{}, modelconfig.Traffic{Shadow: &modelconfig.Share{Version: 1, Weight: 100}}, "other")
	s.answers("m", Wanted{}, 3)
	gate := make(chan struct{})
	s.gate.Store(&gate)
	var group sync.WaitGroup
	group.Go(func() { s.answers("other", Wanted{}, 1) })
	s.eventually("other", "1 LOADING")
	s.copied()
	s.settled("m")
	s.eventually("m", "3 AVAILABLE, 2 START, 1 START")
	close(gate)
	group.Wait()
	s.later()
	s.copied()
	s.eventually("m", "3 AVAILABLE, 2 START, 1 AVAILABLE")
}

// A shadow that could not be loaded, and then gave way to another load, was asked for by nobody any more.
func TestAShadowThatCouldNotBeLoadedIsTriedAgainForCopies(t *testing.T) {
	s := lazyTraffic(t, Options{}, modelconfig.Traffic{Shadow: &modelconfig.Share{Version: 1, Weight: 100}}, "other")
	bad := filepath.Join(s.base, "m/1/bad")
	must(t, os.WriteFile(bad, []byte("on purpose"), 0o600))
	s.answers("m", Wanted{}, 3)
	s.copied()
	for failures := 0; failures == 0; time.Sleep(time.Millisecond) {
		s.mu.RLock()
		failures = s.models["m"].version(1).failures
		s.mu.RUnlock()
	}
	open := s.shut()
	var group sync.WaitGroup
	group.Go(func() { s.answers("other", Wanted{}, 1) })
	s.eventually("other", "1 LOADING")
	must(t, os.Remove(bad)) // so it is tried again, and finds the only place taken
	s.settled("m")
	open()
	group.Wait()
	s.eventually("m", "3 AVAILABLE, 2 START, 1 START")
	s.later()
	s.copied()
	s.eventually("m", "3 AVAILABLE, 2 START, 1 AVAILABLE")
	if s.loads.Load() != 4 {
		t.Errorf("%d loads, want two of the shadow and one of each other", s.loads.Load())
	}
}

func TestWhoAsksForAShadowByItselfWaitsForItAsForAnyOther(t *testing.T) {
	s := lazyTraffic(t, Options{Budget: 1500}, modelconfig.Traffic{Shadow: &modelconfig.Share{Version: 1, Weight: 100}})
	s.answers("m", Wanted{}, 3)
	s.copied()
	s.settled("m")
	s.answers("m", Wanted{Version: 1}, 1)
	s.eventually("m", "3 START, 2 START, 1 AVAILABLE")
	ctx, cancel := context.WithTimeout(context.Background(), time.Nanosecond)
	defer cancel()
	if lease, err := s.Acquire(ctx, "m", Wanted{Version: 3}); lease != nil || status.From(err).Code != status.DeadlineExceeded {
		t.Error(lease, err)
	}
}

// A request that is to be answered without waiting asks chance with Held, and if that has nothing again with Acquire.
func TestAShareThatIsNotLoadedGetsItsPartOfThoseWhoDoNotWait(t *testing.T) {
	s := lazyTraffic(t, Options{}, modelconfig.Traffic{Split: []modelconfig.Share{{Version: 1, Weight: 99}, {Version: 2, Weight: 1}}})
	s.answers("m", Wanted{Version: 1, Exact: true}, 1)
	for range 100 {
		if lease := s.Held("m", Wanted{}); lease != nil {
			lease.Release()
			t.Fatal("chance was asked, and what falls on version 2 will be asked again")
		}
	}
	s.answers("m", Wanted{Version: 2, Exact: true}, 2)
	for _, wanted := range []Wanted{{}, {Version: 1, Exact: true}} {
		lease := s.Held("m", wanted)
		if lease == nil {
			t.Fatal("all shares are loaded, and none answers")
		}
		lease.Release()
	}
}
