package repository

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/status"
)

func fake(name string, version int64, _ string) (*model.Model, error) {
	if version == 2 {
		return nil, errors.New("half copied")
	}
	return &model.Model{Name: name, Version: version}, nil
}

func TestTheHighestAvailableVersionAnswers(t *testing.T) {
	r := New()
	r.Announce("m", []Place{{1, ""}, {2, ""}, {3, ""}})
	expect := func(number int64, version int64, code status.Code, text string) {
		t.Helper()
		lease, err := r.Acquire(context.Background(), "m", Wanted{Version: number})
		if err == nil {
			defer lease.Release()
		}
		if err == nil && (code != status.OK || lease.Model.Version != version) {
			t.Errorf("Acquire(%d) = version %d", number, lease.Model.Version)
		}
		if err != nil && (status.From(err).Code != code || err.Error() != text) {
			t.Errorf("Acquire(%d): %v %s, want %v %s", number, status.From(err).Code, err, code, text)
		}
	}
	expect(0, 0, status.Unavailable, "Servable is still loading: Latest(m)")
	if _, err := r.Load("m", Place{1, ""}, fake); err != nil {
		t.Fatal(err)
	}
	expect(0, 1, status.OK, "")
	expect(3, 0, status.Unavailable, "Servable is still loading: Specific(m, 3)")
	if _, err := r.Load("m", Place{2, ""}, fake); err == nil {
		t.Fatal("a broken version was loaded")
	}
	expect(0, 1, status.OK, "")
	expect(2, 0, status.NotFound, "Servable not found for request: Specific(m, 2)")
	if _, err := r.Load("m", Place{3, ""}, fake); err != nil {
		t.Fatal(err)
	}
	expect(0, 3, status.OK, "")
	expect(1, 1, status.OK, "")
	expect(9, 0, status.NotFound, "Servable not found for request: Specific(m, 9)")

	var states []string
	for _, version := range r.Versions("m") {
		states = append(states, version.State.String())
	}
	if !slices.Equal(states, []string{"AVAILABLE", "END", "AVAILABLE"}) {
		t.Errorf("states %v", states)
	}
}

func TestScanTakesWholeNumbersOnly(t *testing.T) {
	base := t.TempDir()
	if _, err := Scan(base); err == nil || !strings.Contains(err.Error(), "no version directory") {
		t.Errorf("an empty directory: %v", err)
	}
	for _, name := range []string{"10", "9", "tmp", "-1", "1.5", "00000123"} {
		if err := os.Mkdir(filepath.Join(base, name), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	want := []Place{{9, filepath.Join(base, "9")}, {10, filepath.Join(base, "10")}, {123, filepath.Join(base, "00000123")}}
	if places, err := Scan(base); err != nil || !slices.Equal(places, want) {
		t.Errorf("got %v, %v", places, err)
	}
}

func TestAVersionInUseIsNotFreed(t *testing.T) {
	r := New()
	r.Announce("m", []Place{{1, ""}})
	if _, err := r.Load("m", Place{1, ""}, fake); err != nil {
		t.Fatal(err)
	}
	held, err := r.Acquire(context.Background(), "m", Wanted{Version: 1})
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	go func() {
		r.Close()
		close(closed)
	}()
	for r.Versions("m")[0].State != Unloading {
		runtime.Gosched()
	}
	if _, err := r.Acquire(context.Background(), "m", Wanted{}); status.From(err).Code != status.NotFound {
		t.Errorf("a version that is unloaded still answers: %v", err)
	}
	select {
	case <-closed:
		t.Fatal("it was freed while it was held")
	default:
	}
	held.Release()
	<-closed
	if state := r.Versions("m")[0].State; state != End {
		t.Errorf("state %v", state)
	}
	defer func() {
		if recover() == nil {
			t.Error("a lease was released twice and nobody noticed")
		}
	}()
	held.Release()
}
