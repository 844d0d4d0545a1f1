package repository

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/modelconfig"
	"sluicegate/go_infer/internal/status"
)

// stage is a repository of models that are nothing but a name and a number, made of directories on disk. A directory with a file
// called bad is refused with its content; loading waits while gate is not nil.
type stage struct {
	*Repository
	t     *testing.T
	base  string
	gate  atomic.Pointer[chan struct{}]
	slow  atomic.Int64 // nanoseconds that a load takes
	loads atomic.Int64
	live  atomic.Int64
}

func newStage(t *testing.T, options Options) *stage {
	s := &stage{t: t, base: t.TempDir()}
	options.Load = func(name string, version int64, directory string) (*model.Model, error) {
		s.loads.Add(1)
		if gate := s.gate.Load(); gate != nil {
			<-*gate
		}
		time.Sleep(time.Duration(s.slow.Load()))
		if reason, err := os.ReadFile(filepath.Join(directory, "bad")); err == nil {
			return nil, errors.New(string(reason))
		}
		if _, err := os.Stat(directory); err != nil {
			return nil, err
		}
		s.live.Add(1)
		return &model.Model{Name: name, Version: version, Directory: directory}, nil
	}
	options.Close = func(*model.Model) { s.live.Add(-1) }
	if options.Poll == 0 {
		options.Poll = 5 * time.Millisecond
	}
	options.Backoff = [2]time.Duration{time.Millisecond, 5 * time.Millisecond}
	s.Repository = New(options)
	t.Cleanup(func() {
		s.Close()
		if s.live.Load() != 0 {
			t.Errorf("%d models were not freed", s.live.Load())
		}
	})
	return s
}

// put makes a version's directory appear whole, as a careful copy does.
func (s *stage) put(name string, number int, bad string) {
	s.t.Helper()
	aside := filepath.Join(s.base, fmt.Sprintf("tmp-%s-%d", name, number))
	must(s.t, os.MkdirAll(aside, 0o750))
	must(s.t, os.MkdirAll(filepath.Join(s.base, name), 0o750))
	must(s.t, os.WriteFile(filepath.Join(aside, "weights"), make([]byte, 1000), 0o600))
	if bad != "" {
		must(s.t, os.WriteFile(filepath.Join(aside, "bad"), []byte(bad), 0o600))
	}
	must(s.t, os.Rename(aside, filepath.Join(s.base, name, fmt.Sprint(number))))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *stage) config(name string, policy modelconfig.Policy, labels map[string]int64) modelconfig.Model {
	return modelconfig.Model{Name: name, BasePath: filepath.Join(s.base, name), Policy: policy, Labels: labels}
}

func (s *stage) reload(models ...modelconfig.Model) error {
	return s.Reload(soon(s.t), modelconfig.Config{Models: models})
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// eventually polls until the states of a model are as wanted ("3 AVAILABLE, 2 END", newest first).
func (s *stage) eventually(name, want string) {
	s.t.Helper()
	got := ""
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		var all []string
		for _, v := range s.Versions(name) {
			all = append(all, fmt.Sprint(v.Number, " ", v.State))
		}
		if got = strings.Join(all, ", "); got == want {
			return
		}
	}
	s.t.Fatalf("%s: %s\nwant %s", name, got, want)
}

// hold keeps a model in use until the result is called, or the test is over: a version that is held is not freed, and the stage would wait for
// that without an end.
func (s *stage) hold(name string) (release func()) {
	s.t.Helper()
	lease, err := s.Acquire(soon(s.t), name, Wanted{})
	must(s.t, err)
	release = sync.OnceFunc(lease.Release)
	s.t.Cleanup(release)
	return release
}

func (s *stage) answers(name string, wanted Wanted, version int64) {
	s.t.Helper()
	lease, err := s.Acquire(soon(s.t), name, wanted)
	if err != nil {
		s.t.Fatalf("%+v: %v", wanted, err)
	}
	defer lease.Release()
	if lease.Model.Version != version {
		s.t.Errorf("%+v: version %d answers, want %d", wanted, lease.Model.Version, version)
	}
}

func (s *stage) refuses(name string, wanted Wanted, code status.Code, text string) {
	s.t.Helper()
	lease, err := s.Acquire(soon(s.t), name, wanted)
	if err == nil {
		lease.Release()
		s.t.Fatalf("%+v: version %d answers", wanted, lease.Model.Version)
	}
	if status.From(err).Code != code || !strings.Contains(err.Error(), text) {
		s.t.Errorf("%+v: %v %v\nwant %v %s", wanted, status.From(err).Code, err, code, text)
	}
}

func TestThePolicyChoosesAndTheHighestAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		policy modelconfig.Policy
		states string
		answer int64
	}{
		"latest":        {modelconfig.Policy{}, "4 AVAILABLE", 4},
		"latest two":    {modelconfig.Policy{Latest: 2}, "4 AVAILABLE, 3 AVAILABLE", 4},
		"more than are": {modelconfig.Policy{Latest: 9}, "4 AVAILABLE, 3 AVAILABLE, 1 AVAILABLE", 4},
		"all":           {modelconfig.Policy{All: true}, "4 AVAILABLE, 3 AVAILABLE, 1 AVAILABLE", 4},
		"specific":      {modelconfig.Policy{Specific: []int64{1, 3, 7}}, "3 AVAILABLE, 1 AVAILABLE", 3},
		"one":           {modelconfig.Policy{Specific: []int64{1}}, "1 AVAILABLE", 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, Options{})
			for _, number := range []int{1, 3, 4} {
				s.put("m", number, "")
			}
			must(t, s.reload(s.config("m", c.policy, nil)))
			s.eventually("m", c.states)
			s.answers("m", Wanted{}, c.answer)
			s.refuses("m", Wanted{Version: 9}, status.NotFound, "Servable not found for request: Specific(m, 9)")
			s.refuses("m", Wanted{Exact: true}, status.NotFound, "Specific(m, 0)")
			s.refuses("x", Wanted{}, status.NotFound, "Servable not found for request: Latest(x)")
			s.refuses("m", Wanted{Label: "l"}, status.InvalidArgument, "Unrecognized servable version label: l")
		})
	}
}

func TestANewVersionTakesOverOnlyWhenItIsLoaded(t *testing.T) {
	s := newStage(t, Options{})
	s.put("m", 1, "")
	must(t, s.reload(s.config("m", modelconfig.Policy{}, nil)))
	gate := make(chan struct{})
	s.gate.Store(&gate)
	s.put("m", 2, "")
	s.eventually("m", "2 LOADING, 1 AVAILABLE")
	s.answers("m", Wanted{}, 1)
	s.refuses("m", Wanted{Version: 2}, status.Unavailable, "Servable is still loading: Specific(m, 2)")
	close(gate)
	s.eventually("m", "2 AVAILABLE, 1 END")
	s.answers("m", Wanted{}, 2)
}

func TestAVersionThatCannotBeLoadedHarmsNoOtherAndIsTriedAgainWhenItsFilesChange(t *testing.T) {
	s := newStage(t, Options{})
	s.put("m", 1, "")
	must(t, s.reload(s.config("m", modelconfig.Policy{}, nil)))
	s.put("m", 2, "half copied")
	s.eventually("m", "2 END, 1 AVAILABLE")
	if err := s.Versions("m")[0].Err; err == nil || err.Error() != "half copied" {
		t.Errorf("the reason is %v", err)
	}
	s.answers("m", Wanted{}, 1)
	s.refuses("m", Wanted{Version: 2}, status.NotFound, "Specific(m, 2)")
	tries := s.loads.Load()
	must(t, s.Settle(soon(t)))
	for range 5 {
		s.Look()
		must(t, s.Settle(soon(t)))
	}
	if s.loads.Load() != tries {
		t.Errorf("it was tried %d times more though nothing had changed", s.loads.Load()-tries)
	}
	must(t, os.Remove(filepath.Join(s.base, "m/2/bad")))
	s.eventually("m", "2 AVAILABLE, 1 END")
	s.answers("m", Wanted{}, 2)
}

func TestAVersionWhoseFilesChangeWhileItIsLoadedIsNotPublished(t *testing.T) {
	s := newStage(t, Options{})
	s.put("m", 1, "")
	must(t, s.reload(s.config("m", modelconfig.Policy{}, nil)))
	gate := make(chan struct{})
	s.gate.Store(&gate)
	s.put("m", 2, "")
	s.eventually("m", "2 LOADING, 1 AVAILABLE")
	must(t, os.WriteFile(filepath.Join(s.base, "m/2/more"), []byte("x"), 0o600))
	again := make(chan struct{})
	s.gate.Store(&again)
	close(gate)
	for s.loads.Load() < 3 { // the second attempt is on its way
		time.Sleep(time.Millisecond)
	}
	s.answers("m", Wanted{}, 1)
	close(again)
	s.eventually("m", "2 AVAILABLE, 1 END")
}

func TestFilesMustHaveBeenLeftAlone(t *testing.T) {
	const settle = 300 * time.Millisecond
	s := newStage(t, Options{Settle: settle})
	s.put("m", 1, "")
	begun := time.Now()
	must(t, s.reload(s.config("m", modelconfig.Policy{}, nil)))
	if took := time.Since(begun); took < settle-50*time.Millisecond {
		t.Errorf("it was loaded %v after it was written", took)
	}
	s.answers("m", Wanted{}, 1)
}

func TestAVersionInUseIsNotFreed(t *testing.T) {
	s := newStage(t, Options{})
	s.put("m", 1, "")
	must(t, s.reload(s.config("m", modelconfig.Policy{}, nil)))
	release := s.hold("m")
	must(t, s.Apply(modelconfig.Config{}))
	s.eventually("m", "1 UNLOADING")
	s.refuses("m", Wanted{}, status.NotFound, "Servable not found for request: Latest(m)")
	if s.live.Load() != 1 {
		t.Fatal("it was freed while it was held")
	}
	release()
	s.eventually("m", "")
	if s.live.Load() != 0 {
		t.Error("it was not freed")
	}
}

func TestALeaseIsReleasedOnce(t *testing.T) {
	lease := newLease(nil)
	lease.Release()
	defer func() {
		if recover() == nil {
			t.Error("a lease was released twice and nobody noticed")
		}
	}()
	lease.Release()
}

func TestItServesFromTheFirstVersionLoadedUntilTheLastIsNoLongerInUse(t *testing.T) {
	s := newStage(t, Options{})
	serves := func(when string, want bool) {
		t.Helper()
		if s.Serves() != want {
			t.Errorf("%s: it serves: %v", when, !want)
		}
	}
	gate := make(chan struct{})
	s.gate.Store(&gate)
	s.put("a", 1, "")
	must(t, s.Apply(modelconfig.Config{Models: []modelconfig.Model{s.config("a", modelconfig.Policy{}, nil)}}))
	s.eventually("a", "1 LOADING")
	serves("while the first is loaded", false)
	close(gate)
	s.eventually("a", "1 AVAILABLE")
	serves("once it is", true)
	release := s.hold("a")
	must(t, s.Apply(modelconfig.Config{}))
	s.eventually("a", "1 UNLOADING")
	serves("while a request is answered still", true)
	release()
	s.eventually("a", "")
	serves("when all is unloaded", false)
}

func TestLabelsMoveOnlyToVersionsThatAreLoaded(t *testing.T) {
	s := newStage(t, Options{})
	for _, number := range []int{1, 2, 3} {
		s.put("m", number, "")
	}
	// A model that is new may be given labels at once; what they point at is served, whatever the policy says.
	must(t, s.reload(s.config("m", modelconfig.Policy{}, map[string]int64{"stable": 2})))
	s.eventually("m", "3 AVAILABLE, 2 AVAILABLE")
	s.answers("m", Wanted{Label: "stable"}, 2)
	s.answers("m", Wanted{}, 3)
	for name, labels := range map[string]map[string]int64{
		"a new label":    {"stable": 2, "canary": 1},
		"a label in use": {"stable": 1},
		"of no version":  {"stable": 9},
	} {
		err := s.reload(s.config("m", modelconfig.Policy{All: true}, labels))
		if status.From(err).Code != status.FailedPrecondition || !strings.Contains(err.Error(), "which is not currently available for inference") {
			t.Errorf("%s: %v", name, err)
		}
		s.answers("m", Wanted{Label: "stable"}, 2)
		s.refuses("m", Wanted{Version: 1}, status.NotFound, "") // nothing of the refused config is in effect
	}
	must(t, s.reload(s.config("m", modelconfig.Policy{}, map[string]int64{"stable": 3})))
	s.answers("m", Wanted{Label: "stable"}, 3)
	s.eventually("m", "3 AVAILABLE, 2 END")
	if err := s.SetLabel("m", "canary", 2); status.From(err).Code != status.FailedPrecondition {
		t.Errorf("SetLabel to a version that is not loaded: %v", err)
	}
	must(t, s.SetLabel("m", "canary", 3))
	s.answers("m", Wanted{Label: "canary"}, 3)
	if labels := s.Versions("m")[0].Labels; !slices.Equal(labels, []string{"canary", "stable"}) {
		t.Errorf("labels %v", labels)
	}
}

func TestOneCallRollsBackAndAnotherRestores(t *testing.T) {
	for _, kept := range []int{1, 2} { // versions that the policy keeps loaded
		t.Run(fmt.Sprint(kept), func(t *testing.T) {
			s := newStage(t, Options{})
			s.put("m", 1, "")
			s.put("m", 2, "")
			must(t, s.reload(s.config("m", modelconfig.Policy{Latest: kept}, map[string]int64{"stable": 2})))
			s.answers("m", Wanted{}, 2)
			from, to, err := s.Rollback(soon(t), "m")
			if err != nil || from != 2 || to != 1 {
				t.Fatalf("rolled back from %d to %d: %v", from, to, err)
			}
			if kept == 2 { // at once
				s.answers("m", Wanted{}, 1)
			}
			must(t, s.Settle(soon(t)))
			s.answers("m", Wanted{}, 1)
			s.answers("m", Wanted{Label: "stable"}, 1)
			s.eventually("m", "2 END, 1 AVAILABLE")
			if _, _, err := s.Rollback(soon(t), "m"); status.From(err).Code != status.FailedPrecondition {
				t.Errorf("there is nothing below 1: %v", err)
			}
			must(t, s.Restore("m"))
			must(t, s.Settle(soon(t)))
			s.answers("m", Wanted{}, 2)
		})
	}
}

func TestAGlanceNeitherHoldsNorLoads(t *testing.T) {
	s := newStage(t, Options{Lazy: true, LazyWait: 10 * time.Second})
	s.put("m", 1, "")
	s.put("m", 2, "")
	must(t, s.reload(s.config("m", modelconfig.Policy{All: true}, nil)))
	for _, wanted := range []Wanted{{}, {Version: 1}, {Version: 3}, {Label: "none"}} {
		if m := s.Glance("m", wanted); m != nil {
			t.Errorf("%+v: version %d, which is not loaded", wanted, m.Version)
		}
	}
	if s.Glance("none", Wanted{}) != nil || s.loads.Load() != 0 {
		t.Errorf("a model that there is not, or %d loads", s.loads.Load())
	}
	s.answers("m", Wanted{}, 2)
	if m := s.Glance("m", Wanted{}); m == nil || m.Version != 2 {
		t.Errorf("the latest is loaded: %+v", m)
	}
	if m := s.Glance("m", Wanted{Version: 1}); m != nil || s.loads.Load() != 1 {
		t.Errorf("the other is not: %+v, %d loads", m, s.loads.Load())
	}
	must(t, s.Unload(soon(t), "m")) // would wait for who holds it
	if m := s.Glance("m", Wanted{}); m != nil {
		t.Errorf("version %d is unloaded", m.Version)
	}
}

func TestAReloadThatCannotServeAModelSaysThatItIsInEffect(t *testing.T) {
	s := newStage(t, Options{})
	s.put("old", 1, "")
	s.put("new", 1, "")
	must(t, s.reload(s.config("old", modelconfig.Policy{}, nil)))
	err := s.reload(s.config("new", modelconfig.Policy{}, nil), s.config("nowhere", modelconfig.Policy{}, nil))
	if status.From(err).Code != status.FailedPrecondition || !strings.Contains(err.Error(), "the configuration is in effect, but not all of it can be served: ") ||
		!strings.Contains(err.Error(), "nowhere: no such file or directory") {
		t.Errorf("%v", err)
	}
	s.answers("new", Wanted{}, 1)
	for end := time.Now().Add(10 * time.Second); s.Glance("old", Wanted{}) != nil; time.Sleep(time.Millisecond) { // an unload is not waited for
		if time.Now().After(end) {
			t.Fatal("what the config leaves out is served")
		}
	}
}

func TestTrafficIsSharedByWeightAndABrokenCanaryCostsNobodyAnAnswer(t *testing.T) {
	s := newStage(t, Options{})
	s.put("m", 1, "")
	s.put("m", 2, "")
	config := modelconfig.Config{
		Models: []modelconfig.Model{s.config("m", modelconfig.Policy{}, map[string]int64{"stable": 1})},
		Traffic: []modelconfig.Traffic{{Model: "m", Split: []modelconfig.Share{
			{Label: "stable", Weight: 90}, {Version: 2, Weight: 10}, {Version: 3, Weight: 100}}}},
	}
	must(t, s.Reload(soon(t), config))
	s.eventually("m", "2 AVAILABLE, 1 AVAILABLE")
	count := func() map[int64]int {
		got := map[int64]int{}
		for range 5000 {
			lease, err := s.Acquire(soon(t), "m", Wanted{})
			must(t, err)
			got[lease.Model.Version]++
			lease.Release()
		}
		return got
	}
	if got := count(); got[1] < 4300 || got[1] > 4700 || got[1]+got[2] != 5000 {
		t.Errorf("shares %v of 90 and 10", got)
	}
	if m := s.Glance("m", Wanted{}); m != nil {
		t.Errorf("chance decides who answers, and a glance sees version %d", m.Version)
	}
	if m := s.Glance("m", Wanted{Label: "stable"}); m == nil || m.Version != 1 {
		t.Errorf("who asks for a label takes no chance: %+v", m)
	}
	if err := s.SetTraffic([]modelconfig.Traffic{{Model: "x"}}); err == nil || err.Error() != `traffic: there is no model "x"; there are: m` {
		t.Errorf("unknown model: %v", err)
	}
	err := s.SetTraffic([]modelconfig.Traffic{{Model: "m", Split: []modelconfig.Share{{Label: "next", Weight: 1}}}})
	if err == nil || err.Error() != `traffic of model m: there is no label "next"` {
		t.Errorf("unknown label: %v", err)
	}
	must(t, s.SetTraffic(nil))
	if got := count(); got[2] != 5000 {
		t.Errorf("shares %v without a split", got)
	}
}

func TestLazyModelsAreLoadedOnceByWhoeverAsksFirst(t *testing.T) {
	s := newStage(t, Options{Lazy: true, LazyWait: 5 * time.Second})
	s.put("m", 1, "")
	s.put("m", 2, "no good")
	must(t, s.reload(s.config("m", modelconfig.Policy{All: true}, nil)))
	s.eventually("m", "2 START, 1 START")
	if s.loads.Load() != 0 {
		t.Fatal("something was loaded that nobody asked for")
	}
	gate := make(chan struct{})
	s.gate.Store(&gate)
	short, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := s.Acquire(short, "m", Wanted{Version: 1}); status.From(err).Code != status.DeadlineExceeded {
		t.Errorf("a request with a deadline got %v", err)
	}
	var group sync.WaitGroup
	for range 8 {
		group.Add(1)
		go func() {
			defer group.Done()
			lease, err := s.Acquire(context.Background(), "m", Wanted{Version: 1})
			if err != nil {
				t.Error(err)
				return
			}
			lease.Release()
		}()
	}
	close(gate)
	group.Wait()
	if s.loads.Load() != 1 {
		t.Errorf("%d loads for one version", s.loads.Load())
	}
	s.refuses("m", Wanted{Version: 2}, status.Unavailable, "no good")
	s.eventually("m", "2 START, 1 AVAILABLE")
}

func TestAWaitForALazyModelIsBounded(t *testing.T) {
	s := newStage(t, Options{Lazy: true, LazyWait: 20 * time.Millisecond})
	s.put("m", 1, "")
	must(t, s.reload(s.config("m", modelconfig.Policy{}, nil)))
	gate := make(chan struct{})
	s.gate.Store(&gate)
	s.refuses("m", Wanted{}, status.Unavailable, "Servable is still loading: Latest(m)")
	close(gate)
	s.eventually("m", "1 AVAILABLE")
	s.answers("m", Wanted{}, 1)
}

func TestWhatWasUsedLeastRecentlyMakesRoom(t *testing.T) {
	s := newStage(t, Options{Lazy: true, LazyWait: 5 * time.Second, Budget: 2500}) // two of 1,200
	var models []modelconfig.Model
	for _, name := range []string{"a", "b", "c"} {
		s.put(name, 1, "")
		models = append(models, s.config(name, modelconfig.Policy{}, nil))
	}
	must(t, s.reload(models...))
	s.answers("a", Wanted{}, 1)
	s.answers("b", Wanted{}, 1)
	s.answers("a", Wanted{}, 1)
	s.answers("c", Wanted{}, 1) // b was used least recently
	s.eventually("a", "1 AVAILABLE")
	s.eventually("b", "1 START")
	s.answers("b", Wanted{}, 1)
	s.eventually("a", "1 START")
	if s.Memory() > 2500 {
		t.Errorf("%d bytes are taken", s.Memory())
	}
}

func TestWhatDoesNotFitIsRefusedWithTheNumbers(t *testing.T) {
	s := newStage(t, Options{Budget: 1500})
	s.put("a", 1, "")
	s.put("b", 1, "")
	must(t, s.reload(s.config("a", modelconfig.Policy{}, nil)))
	err := s.reload(s.config("a", modelconfig.Policy{}, nil), s.config("b", modelconfig.Policy{}, nil))
	if err == nil || !strings.Contains(err.Error(), "nothing can be unloaded for it") {
		t.Errorf("got %v", err)
	}
	s.answers("a", Wanted{}, 1)
}

func TestAModelIsUnloadedAndLoadedByName(t *testing.T) {
	s := newStage(t, Options{})
	s.put("m", 1, "")
	must(t, s.reload(s.config("m", modelconfig.Policy{}, nil)))
	must(t, s.Unload(soon(t), "m"))
	if s.live.Load() != 0 {
		t.Error("it is in memory still")
	}
	s.refuses("m", Wanted{}, status.NotFound, "Latest(m)")
	must(t, s.Load(soon(t), "m"))
	s.answers("m", Wanted{}, 1)
	if err := s.Load(soon(t), "x"); status.From(err).Code != status.NotFound {
		t.Errorf("unknown: %v", err)
	}
}

func TestABasePathThatVanishesChangesNothing(t *testing.T) {
	s := newStage(t, Options{})
	s.put("m", 1, "")
	must(t, s.reload(s.config("m", modelconfig.Policy{}, nil)))
	must(t, os.Rename(filepath.Join(s.base, "m"), filepath.Join(s.base, "away")))
	s.Look()
	must(t, s.Settle(soon(t)))
	s.answers("m", Wanted{}, 1)
	if err := s.reload(s.config("none", modelconfig.Policy{}, nil)); err == nil || !strings.Contains(err.Error(), "no such file or directory") {
		t.Errorf("a model without a base path: %v", err)
	}
}

// The oracle: whatever is done to a model, a request gets the version it names, or, without a name, one that was loaded.
func TestNoRequestFailsWhileVersionsComeAndGo(t *testing.T) {
	s := newStage(t, Options{})
	for _, number := range []int{1, 2, 3} {
		s.put("m", number, "")
	}
	two := func(a, b int64) modelconfig.Policy { return modelconfig.Policy{Specific: []int64{a, b}} }
	must(t, s.reload(s.config("m", two(1, 2), map[string]int64{"x": 1})))
	done := make(chan struct{})
	var group sync.WaitGroup
	var asked atomic.Int64
	for client := range 4 {
		group.Add(1)
		go func() {
			defer group.Done()
			for {
				select {
				case <-done:
					return
				default:
				}
				wanted := []Wanted{{}, {Label: "x"}}[client%2]
				lease, err := s.Acquire(context.Background(), "m", wanted)
				if err != nil {
					t.Errorf("%+v: %v", wanted, err)
					return
				}
				if lease.Model.Version < 1 || lease.Model.Version > 3 || s.live.Load() == 0 {
					t.Error("a version that is not loaded")
				}
				lease.Release()
				asked.Add(1)
			}
		}()
	}
	for round := range 100 {
		a, b := int64(1+round%3), int64(1+(round+1)%3)
		kept := s.Versions("m")
		label := map[string]int64{}
		for _, v := range kept {
			if slices.Contains(v.Labels, "x") {
				label["x"] = v.Number
			}
		}
		must(t, s.reload(s.config("m", two(a, b), label)))
		for _, v := range s.Versions("m") {
			if v.State == Available && slices.Contains([]int64{a, b}, v.Number) {
				if err := s.SetLabel("m", "x", v.Number); err != nil {
					t.Error(err)
				}
			}
		}
	}
	close(done)
	group.Wait()
	if asked.Load() < 100 {
		t.Errorf("only %d requests", asked.Load())
	}
}

func TestScanTakesWholeNumbersOnly(t *testing.T) {
	base := t.TempDir()
	if _, err := Scan(context.Background(), base); err == nil || !strings.Contains(err.Error(), "no version directory") {
		t.Errorf("an empty directory: %v", err)
	}
	for _, name := range []string{"10", "9", "tmp", "-1", "1.5", "00000123", "123"} {
		must(t, os.Mkdir(filepath.Join(base, name), 0o750))
	}
	want := []Place{{9, filepath.Join(base, "9"), ""}, {10, filepath.Join(base, "10"), ""}, {123, filepath.Join(base, "00000123"), ""}}
	if places, err := Scan(context.Background(), base); err != nil || !slices.Equal(places, want) {
		t.Errorf("got %v, %v", places, err)
	}
}

func TestTheNextStepIsTheRightOne(t *testing.T) {
	now := time.Now()
	start := view{state: Start, aspired: true, wanted: true}
	available, old := view{state: Available, aspired: true, wanted: true}, view{state: Available}
	later := view{state: End, failed: true, aspired: true, wanted: true, due: now.Add(time.Hour)}
	for name, c := range map[string]struct {
		views []view
		what  action
		index int
	}{
		"nothing":                               {nil, rest, 0},
		"the newest is loaded first":            {[]view{start, start}, load, 1},
		"all is well":                           {[]view{available}, rest, 0},
		"the old one goes when the new is here": {[]view{old, available}, unload, 0},
		"and not before":                        {[]view{old, {state: Loading, aspired: true, wanted: true}}, rest, 0},
		"nor if the new one failed":             {[]view{old, later}, rest, 0},
		"it goes if none shall be":              {[]view{old}, unload, 0},
		"a lazy one that is not there is none":  {[]view{old, {state: Start, aspired: true}}, rest, 0},
		"a spare one is loaded when asked for":  {[]view{{state: Start, spare: true, wanted: true}, {state: Start, aspired: true}}, load, 0},
		"a lazy one is not loaded":              {[]view{{state: Start, aspired: true}}, rest, 0},
		"a failed one is tried when it is due":  {[]view{{state: End, failed: true, aspired: true, wanted: true, due: now}}, load, 0},
		"one that was unloaded stays":           {[]view{{state: End, aspired: true, wanted: true}}, rest, 0},
	} {
		if what, index, _ := next(c.views, now); what != c.what || index != c.index {
			t.Errorf("%s: %v %d, want %v %d", name, what, index, c.what, c.index)
		}
	}
	if _, _, until := next([]view{later}, now); until != later.due {
		t.Errorf("look again at %v, want %v", until, later.due)
	}
}

func TestAspired(t *testing.T) {
	set := func(numbers ...int64) map[int64]bool {
		all := map[int64]bool{}
		for _, number := range numbers {
			all[number] = true
		}
		return all
	}
	found := []int64{1, 2, 3, 5}
	for name, c := range map[string]struct {
		policy             modelconfig.Policy
		withdrawn, pointed map[int64]bool
		want               []int64
	}{
		"latest":                      {modelconfig.Policy{}, nil, nil, []int64{5}},
		"a label keeps one":           {modelconfig.Policy{}, nil, set(1), []int64{1, 5}},
		"a label to nowhere":          {modelconfig.Policy{}, nil, set(4), []int64{5}},
		"withdrawn":                   {modelconfig.Policy{}, set(5), nil, []int64{3}},
		"withdrawn beats a label":     {modelconfig.Policy{}, set(5), set(5), []int64{3}},
		"specific without one":        {modelconfig.Policy{Specific: []int64{2, 5}}, set(5), nil, []int64{2}},
		"all without one":             {modelconfig.Policy{All: true}, set(2), nil, []int64{1, 3, 5}},
		"latest two, both withdrawn?": {modelconfig.Policy{Latest: 2}, set(3, 5), nil, []int64{1, 2}},
	} {
		before := maps.Clone(c.withdrawn)
		if got := aspired(c.policy, found, c.withdrawn, c.pointed); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		if !maps.Equal(before, c.withdrawn) {
			t.Errorf("%s: the decision changed what it was given", name)
		}
	}
}

func BenchmarkAcquire(b *testing.B) {
	base := b.TempDir()
	if err := os.MkdirAll(filepath.Join(base, "m/1"), 0o750); err != nil {
		b.Fatal(err)
	}
	r := New(Options{Load: func(name string, version int64, _ string) (*model.Model, error) {
		return &model.Model{Name: name, Version: version}, nil
	}, Close: func(*model.Model) {}})
	defer r.Close()
	if err := r.Reload(context.Background(), modelconfig.Config{Models: []modelconfig.Model{{Name: "m", BasePath: filepath.Join(base, "m")}}}); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		lease, err := r.Acquire(context.Background(), "m", Wanted{})
		if err != nil {
			b.Fatal(err)
		}
		lease.Release()
	}
}

// A copy with a pause longer than the settling time was looked at again only when the next retry was due.
func TestFilesThatChangedAreNotHeldBackByTheRetriesOfThoseBefore(t *testing.T) {
	s := newStage(t, Options{Retries: 5, Every: time.Hour})
	s.put("m", 1, "")
	must(t, s.reload(s.config("m", modelconfig.Policy{}, nil)))
	s.put("m", 2, "half copied")
	for held := false; !held; time.Sleep(time.Millisecond) {
		s.mu.RLock()
		v := s.models["m"].version(2)
		held = v != nil && time.Until(v.due) > time.Minute
		s.mu.RUnlock()
	}
	must(t, os.Remove(filepath.Join(s.base, "m/2/bad")))
	s.eventually("m", "2 AVAILABLE, 1 END")
}

func TestWhatOperatorsDidToLabelsOutlivesAReloadThatSaysNothingNewOfThem(t *testing.T) {
	s := newStage(t, Options{})
	for number := 1; number <= 3; number++ {
		s.put("m", number, "")
	}
	s.put("other", 1, "")
	all := modelconfig.Policy{All: true}
	config := s.config("m", all, map[string]int64{"stable": 3, "old": 1})
	must(t, s.reload(config))
	_, _, err := s.Rollback(soon(t), "m")
	must(t, err)
	s.answers("m", Wanted{Label: "stable"}, 2)
	must(t, s.SetLabel("m", "canary", 1))
	must(t, s.reload(config, s.config("other", modelconfig.Policy{}, nil))) // an unrelated change
	s.answers("m", Wanted{Label: "stable"}, 2)
	s.answers("m", Wanted{Label: "canary"}, 1)
	s.answers("m", Wanted{Label: "old"}, 1)
	must(t, s.reload(s.config("m", all, map[string]int64{"stable": 1}))) // a related one
	s.answers("m", Wanted{Label: "stable"}, 1)
	s.refuses("m", Wanted{Label: "old"}, status.InvalidArgument, "Unrecognized")
	if err := s.reload(s.config("m", all, map[string]int64{"stable": 3})); status.From(err).Code != status.FailedPrecondition {
		t.Errorf("a label moved to what was withdrawn: %v", err)
	}
}

func TestALabelOfAVersionThatThereIsNotIsTold(t *testing.T) {
	var log lines
	s := newStage(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	s.put("m", 1, "")
	must(t, s.reload(s.config("m", modelconfig.Policy{}, map[string]int64{"one": 1, "none": 9})))
	for range 3 {
		s.Look()
		must(t, s.Settle(soon(t)))
	}
	if n := log.count("a label points at a version that there is not"); n != 1 {
		t.Errorf("%d lines in the log", n)
	}
	lost := s.Lost()
	if len(lost) != 1 || lost[0].Number != 9 || !slices.Equal(lost[0].Labels, []string{"none"}) || !strings.Contains(lost[0].Err.Error(), "is not in") {
		t.Errorf("lost: %+v", lost)
	}
	s.put("m", 9, "")
	s.eventually("m", "9 AVAILABLE, 1 AVAILABLE")
	s.answers("m", Wanted{Label: "none"}, 9)
	if lost := s.Lost(); len(lost) != 0 {
		t.Errorf("lost: %+v", lost)
	}
}

func TestAVersionWhoseBasePathChangedIsToldToBeServedFromTheOldOne(t *testing.T) {
	var log lines
	s := newStage(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	s.put("m", 1, "")
	s.put("elsewhere", 1, "")
	must(t, s.reload(s.config("m", modelconfig.Policy{}, nil)))
	moved := s.config("m", modelconfig.Policy{}, nil)
	moved.BasePath = filepath.Join(s.base, "elsewhere")
	must(t, s.reload(moved))
	must(t, s.reload(moved))
	if n := log.count("a version lies elsewhere now"); n != 1 {
		t.Errorf("%d lines in the log", n)
	}
}

// lines is a log in memory.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

func (l *lines) count(message string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), message)
}
