package main

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"sluicegate/go_infer/internal/metrics"
	"sluicegate/go_infer/internal/resident"
)

// trimmed is a trimming of libraries with so many bytes in memory. What is asked for goes, up to where it fails.
func trimmed(bytesIn, failsAt int) (t *trimming, said *bytes.Buffer, outs *int) {
	said, outs = &bytes.Buffer{}, new(int)
	t = newTrimming(true, metrics.New(), slog.New(slog.NewTextHandler(said, nil)))
	left := bytesIn
	t.read = func() (resident.Set, error) { return resident.Set{{Begin: 0, End: uintptr(left)}}, nil }
	t.out = func(set resident.Set) (int, error) {
		*outs++
		if failsAt < set.Bytes() {
			left -= failsAt
			return failsAt, resident.ErrUnsupported
		}
		left = 0
		return set.Bytes(), nil
	}
	return t, said, outs
}

func TestOnlyTheFirstLoadGivesBack(t *testing.T) {
	trim, said, outs := trimmed(100<<20, 1<<30)
	first, second := trim.load(), trim.load() // at the same time
	if !first() || !second() {
		t.Error("what was begun before the pages went is not warmed again")
	}
	if trim.load()() {
		t.Error("a later load is warmed again though nothing was given back since")
	}
	if *outs != 1 || trim.given.Load() != 100<<20 || strings.Count(said.String(), "megabytes=100 of=100") != 1 {
		t.Errorf("given back %d times, %d bytes, said %q", *outs, trim.given.Load(), said.String())
	}
}

// TestWhatIsGivenBackInPartIsWarmedAgain: what went before the failure is out of memory.
func TestWhatIsGivenBackInPartIsWarmedAgain(t *testing.T) {
	trim, said, _ := trimmed(100<<20, 30<<20)
	if !trim.load()() {
		t.Error("30 MB are out of memory, and the model is not warmed again")
	}
	if trim.given.Load() != 30<<20 || !strings.Contains(said.String(), "are not given back") {
		t.Errorf("%d bytes are told, said %q", trim.given.Load(), said.String())
	}
}

func TestWhereNothingGoesNothingIsWarmedAgain(t *testing.T) {
	nothing, said, _ := trimmed(100<<20, 0)
	if nothing.load()() || nothing.load()() || strings.Count(said.String(), "are not given back") != 1 {
		t.Errorf("a system that gives nothing back: said %q", said.String())
	}
	little, said, outs := trimmed(1<<20, 1<<30)
	if little.load()() || *outs != 0 || said.Len() != 0 {
		t.Errorf("little was given back %d times, said %q", *outs, said.String())
	}
	blind, said, outs := trimmed(100<<20, 1<<30)
	blind.read = func() (resident.Set, error) { return nil, errors.New("no /proc") }
	if blind.load()() || *outs != 0 || !strings.Contains(said.String(), "no /proc") {
		t.Errorf("given back unseen %d times, said %q", *outs, said.String())
	}
	off := newTrimming(false, metrics.New(), slog.New(slog.NewTextHandler(said, nil)))
	off.out = func(resident.Set) (int, error) { t.Error("given back though it is off"); return 0, nil }
	if off.load()() {
		t.Error("warmed again though it is off")
	}
}
