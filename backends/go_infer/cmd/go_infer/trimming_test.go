package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"sluicegate/go_infer/internal/metrics"
)

func TestTrimmingSaysOnceWhyItGoesOnWithout(t *testing.T) {
	var said bytes.Buffer
	trim := newTrimming(true, metrics.New(), slog.New(slog.NewTextHandler(&said, nil)))
	for range 2 {
		trim.stop(bytes.ErrTooLarge)
	}
	if again := trim.load()(); again || strings.Count(said.String(), "are not given back") != 1 {
		t.Errorf("warmed again: %v, said %q", again, said.String())
	}
}

func TestOnlyALoadBesideWhichNoOtherEndedGivesBack(t *testing.T) {
	var said bytes.Buffer
	trim := newTrimming(true, metrics.New(), slog.New(slog.NewTextHandler(&said, nil)))
	first, second := trim.load(), trim.load()
	gave := first()
	told := said.Len()
	for _, published := range []bool{false, true} { // the first
		if published {
			trim.loads()
		}
		if again := second(); said.Len() != told {
			t.Errorf("what the first needs may be gone: %q", said.String())
		} else if again != gave {
			t.Errorf("the first gave something back: %v; the second, which may need that, is warmed again: %v", gave, again)
		}
	}
	if third := trim.load(); third() { // it touched nothing
		t.Errorf("a load that touched nothing gave something back: %q", said.String())
	}
	trim.unloads()
}

func TestNothingIsTrimmedWhereItIsOff(t *testing.T) {
	var said bytes.Buffer
	trim := newTrimming(false, metrics.New(), slog.New(slog.NewTextHandler(&said, nil)))
	if trim.load()() || said.Len() != 0 || trim.given.Load() != 0 {
		t.Errorf("gave back %d bytes, said %q", trim.given.Load(), said.String())
	}
}
