package main

import (
	"cmp"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sluicegate/go_infer/internal/metrics"
	"sluicegate/go_infer/internal/resident"
)

// worthwhile is what must be in memory of the libraries for it to be given back.
const worthwhile = 8 << 20

// trimming gives back what the start and the first load touched of TensorFlow's libraries and serving does not use (docs/adr/0044), once in
// the life of a process: when its first load has been warmed, and so before anybody is served. Later loads touch again what loading needs,
// and that stays: the next load, and those who are served, find it in memory.
type trimming struct {
	log   *slog.Logger
	read  func() (resident.Set, error)
	out   func(resident.Set) (asked int, err error)
	given atomic.Int64 // bytes

	mu   sync.Mutex
	done bool
	gave bool // something may be out of memory since
}

func newTrimming(on bool, registry *metrics.Registry, log *slog.Logger) *trimming {
	t := &trimming{log: log, done: !on, out: resident.Out, read: func() (resident.Set, error) { return resident.Read(ofTensorFlow) }}
	registry.Counter("go_infer_libraries_trimmed_bytes_total", "Memory of pages of TensorFlow's libraries that was given back after the first load.",
		func() float64 { return float64(t.given.Load()) })
	return t
}

func ofTensorFlow(path string) bool { return strings.HasPrefix(filepath.Base(path), "libtensorflow") }

// load is told that a load begins, and the result that it has been warmed; again says whether what it needs may be out of memory now: that of
// the first to be warmed, and of those that had begun by then.
func (t *trimming) load() (warmed func() (again bool)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	later := t.done
	return func() bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		if !t.done {
			t.done = true
			t.gave = t.trim()
		}
		return !later && t.gave
	}
}

// trim gives back what is in memory, and says whether any of it may be gone. Whatever fails, the server goes on without.
func (t *trimming) trim() (gave bool) {
	before, err := t.read()
	if err != nil {
		t.without(err)
		return false
	}
	if before.Bytes() < worthwhile {
		return false
	}
	began := time.Now()
	asked, failed := t.out(before)
	after, err := t.read()
	if failed != nil || err != nil {
		t.without(cmp.Or(failed, err))
	}
	if err == nil {
		given := max(0, before.Bytes()-after.Bytes())
		t.given.Add(int64(given))
		said := []any{"megabytes", given >> 20, "of", before.Bytes() >> 20, "ms", time.Since(began).Milliseconds()}
		if given < asked/2 {
			said = append(said, "why", "the system keeps what other processes use as well, and files that this user neither owns nor may write")
		}
		t.log.Info("gave back pages of TensorFlow's libraries", said...)
	}
	return asked > 0
}

func (t *trimming) without(err error) {
	t.log.Info("pages of TensorFlow's libraries are not given back", "why", err.Error())
}
