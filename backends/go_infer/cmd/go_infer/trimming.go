package main

import (
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sluicegate/go_infer/internal/metrics"
	"sluicegate/go_infer/internal/resident"
	"sluicegate/go_infer/internal/session"
)

// worthwhile is what a load must have touched of the libraries for it to be given back.
const worthwhile = 8 << 20

// trimming gives back what loads touched of TensorFlow's libraries and serving does not use (docs/adr/0044).
//
// Where no model is served a load gives back everything, the start's share included, and what it is warmed with comes back. Beside others
// it leaves alone what was in memory before it began, for those who are served may use it; and if another load ended or gave something back
// meanwhile, everything. In the second case it is warmed again, too.
type trimming struct {
	on    bool
	log   *slog.Logger
	given atomic.Int64 // bytes

	mu     sync.Mutex
	loaded int // versions that may be served
	ended  int // loads that made them
	times  int // that something was given back
}

func newTrimming(on bool, registry *metrics.Registry, log *slog.Logger) *trimming {
	t := &trimming{on: on, log: log}
	registry.Counter("go_infer_libraries_trimmed_bytes_total", "Memory of pages of TensorFlow's libraries that was given back after loads.",
		func() float64 { return float64(t.given.Load()) })
	return t
}

func ofTensorFlow(path string) bool { return strings.HasPrefix(filepath.Base(path), "libtensorflow") }

// load is told that a load begins, and the result that it has been warmed; again says whether what it needs may be out of memory now.
func (t *trimming) load() (warmed func() (again bool)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var used resident.Set
	if t.loaded > 0 {
		used = t.read()
	}
	ended, times := t.ended, t.times
	return func() bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.times != times { // what this one needs may have gone with that, and what that one has warmed since is not to go
			return true
		}
		if t.ended != ended || !t.trim(used) {
			return false
		}
		t.times++
		return true
	}
}

// loads is told that a version was loaded.
func (t *trimming) loads() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.loaded++
	t.ended++
}

// unloads is told that one is gone.
func (t *trimming) unloads() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.loaded--
}

// trim gives back what is not used.
func (t *trimming) trim(used resident.Set) bool {
	if !t.on {
		return false
	}
	before := t.read()
	out := before.Without(used)
	if out.Bytes() < worthwhile {
		return false
	}
	began := time.Now()
	if err := resident.Out(out, session.PauseAfter); err != nil {
		t.stop(err)
		return false
	}
	after := t.read()
	given := max(0, before.Bytes()-after.Bytes())
	t.given.Add(int64(given))
	said := []any{"megabytes", given >> 20, "of", before.Bytes() >> 20, "ms", time.Since(began).Milliseconds()}
	if given < out.Bytes()/2 {
		said = append(said, "why", "the system keeps what other processes use as well, and files that this user neither owns nor may write")
	}
	t.log.Info("gave back pages of TensorFlow's libraries", said...)
	return true
}

func (t *trimming) read() resident.Set {
	if !t.on {
		return nil
	}
	set, err := resident.Read(ofTensorFlow, session.PauseAfter)
	if err != nil {
		t.stop(err)
	}
	return set
}

// stop goes on without.
func (t *trimming) stop(err error) {
	if t.on {
		t.log.Info("pages of TensorFlow's libraries are not given back", "why", err.Error())
	}
	t.on = false
}
