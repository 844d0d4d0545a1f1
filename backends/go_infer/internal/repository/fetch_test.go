package repository

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sluicegate/go_infer/internal/modelconfig"
	"sluicegate/go_infer/internal/status"
)

const address = "http://models.test/m"

// shelf is a remote repository. A version is fetched when its gate is open; a gate with an error refuses.
type shelf struct {
	directory string

	mu       sync.Mutex
	versions []int64
	gates    map[int64]chan error
	held     map[int64]int
	given    int // fetches given up
}

func newShelf(t *testing.T, versions ...int64) *shelf {
	s := &shelf{directory: t.TempDir(), versions: versions, gates: map[int64]chan error{}, held: map[int64]int{}}
	for number := range int64(10) {
		s.gates[number] = make(chan error, 100)
	}
	return s
}

func (s *shelf) Versions(context.Context, string) ([]int64, func(int64) string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.versions, func(version int64) string { return filepath.Join(s.directory, fmt.Sprint(version)) }, nil
}

func (s *shelf) Fetch(ctx context.Context, from string, version int64) (func(), error) {
	if from != address {
		return nil, errors.New("asked for " + from)
	}
	select {
	case err := <-s.gates[version]:
		if err != nil {
			return nil, err
		}
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		s.given++
		return nil, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[version]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.held[version]--
	}, os.MkdirAll(filepath.Join(s.directory, fmt.Sprint(version)), 0o750)
}

func (s *shelf) publish(versions ...int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.versions = versions
}

func (s *shelf) holds(version int64) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held[version]
}

func eventually(t *testing.T, claim string, met func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !met(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(claim)
		}
	}
}

func TestAVersionFromElsewhereIsFetchedThenLoadedAndHeldWhileItIs(t *testing.T) {
	remote := newShelf(t, 1)
	s := newStage(t, Options{Remote: remote, Settle: time.Hour})
	remote.gates[1] <- nil
	must(t, s.reload(modelconfig.Model{Name: "m", BasePath: address}))
	s.answers("m", Wanted{}, 1)

	remote.publish(1, 2) // and the repository hangs
	s.eventually("m", "2 LOADING, 1 AVAILABLE")
	s.answers("m", Wanted{}, 1)
	remote.gates[2] <- errors.New("the disk is full")
	reason := func(text string) func() bool {
		return func() bool {
			v := s.Versions("m")[0]
			return v.Number == 2 && v.Err != nil && strings.Contains(v.Err.Error(), text) && status.From(v.Err).Code == status.Unavailable
		}
	}
	eventually(t, "the reason is not told", func() bool {
		remote.gates[2] <- errors.New("the disk is full")
		return reason("it cannot be fetched: the disk is full")()
	})
	s.answers("m", Wanted{}, 1)
	eventually(t, "it was not fetched in the end", func() bool {
		select {
		case remote.gates[2] <- nil:
		default:
		}
		return s.Versions("m")[0].State == Available
	})
	s.eventually("m", "2 AVAILABLE, 1 END")
	s.answers("m", Wanted{}, 2)
	eventually(t, "what is loaded is held, and nothing else", func() bool { return remote.holds(1) == 0 && remote.holds(2) == 1 })
}

func TestAHungFetchEndsWhenNobodyWantsItAndHoldsUpNothing(t *testing.T) {
	remote := newShelf(t, 1)
	s := newStage(t, Options{Remote: remote})
	s.put("local", 1, "")
	remote.gates[1] <- nil
	model := modelconfig.Model{Name: "m", BasePath: address}
	must(t, s.reload(model))
	remote.publish(1, 2)
	s.eventually("m", "2 LOADING, 1 AVAILABLE")
	model.Policy.Specific = []int64{1}
	must(t, s.reload(model, s.config("local", modelconfig.Policy{}, nil)))
	s.eventually("m", "2 END, 1 AVAILABLE")
	s.answers("local", Wanted{}, 1)
	model.Policy.Specific = []int64{2}
	must(t, s.Apply(modelconfig.Config{Models: []modelconfig.Model{model}}))
	s.eventually("m", "2 LOADING, 1 AVAILABLE")
	must(t, s.reload()) // the model goes while it is fetched
	eventually(t, "the model should be gone", func() bool { return s.Versions("m") == nil })
	eventually(t, "what was given up", func() bool {
		remote.mu.Lock()
		defer remote.mu.Unlock()
		return remote.given == 2 && remote.held[1] == 0
	})
}

func TestWhatWasFetchedAndCannotBeLoadedIsNotHeld(t *testing.T) {
	remote := newShelf(t, 1)
	s := newStage(t, Options{Remote: remote, Retries: 0})
	must(t, os.MkdirAll(filepath.Join(remote.directory, "1"), 0o750))
	must(t, os.WriteFile(filepath.Join(remote.directory, "1", "bad"), []byte("no graph"), 0o600))
	remote.gates[1] <- nil
	if err := s.reload(modelconfig.Model{Name: "m", BasePath: address}); err == nil || !strings.Contains(err.Error(), "no graph") {
		t.Errorf("got %v", err)
	}
	eventually(t, "it is held", func() bool { return remote.holds(1) == 0 })
}

func TestWithoutARemoteURLsAreRefused(t *testing.T) {
	s := newStage(t, Options{})
	if err := s.reload(modelconfig.Model{Name: "m", BasePath: address}); err == nil || !strings.Contains(err.Error(), "remote base paths are not served") {
		t.Errorf("got %v", err)
	}
}
