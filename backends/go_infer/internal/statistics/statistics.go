// Package statistics counts what one loaded version of a model did, as Triton's statistics extension tells it.
//
// Contract: counts and durations only grow, from the moment the version is loaded; a version that is loaded again begins at zero.
// All protocols count alike, because the model itself counts. A request is counted once, however many Runs its parts took; a Run is
// counted once, however many requests shared it.
// Source: docs/protocol/extension_statistics.md of triton-inference-server/server.
package statistics

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Duration is how often something happened and how long it took altogether.
type Duration struct {
	Count int64
	Time  time.Duration
}

// Batch is what the Runs of one size cost.
type Batch struct {
	Rows                 int // before padding
	Input, Infer, Output Duration
}

// Snapshot is the state of a Recorder. The counts of one snapshot may differ by requests that were just being answered.
type Snapshot struct {
	LastInference time.Time // zero: never
	Inferences    int64     // rows of requests that succeeded
	Executions    int64     // Runs that succeeded

	Success, Fail        Duration // requests, from complete tensors in to complete tensors out
	Queue                Duration // requests, until their first row was taken by a Run
	Input, Infer, Output Duration // requests, their Runs' time to gather rows, to run, to give rows back

	Batches []Batch // ascending by Rows
}

// cell is a Duration that grows.
type cell struct{ count, time atomic.Int64 }

func (c *cell) add(count int, took time.Duration) {
	c.count.Add(int64(count))
	c.time.Add(int64(took))
}

func (c *cell) read() Duration { return Duration{c.count.Load(), time.Duration(c.time.Load())} }

// Recorder counts. The zero value is ready; safe for concurrent use; counting allocates only for a batch size not seen before.
type Recorder struct {
	last, rows, runs     atomic.Int64
	success, fail, queue cell
	input, infer, output cell

	mu      sync.Mutex
	batches map[int]*Batch
}

// Answered counts a request of so many rows that was answered, or that failed.
func (r *Recorder) Answered(begun time.Time, rows int, failed bool) {
	now := time.Now()
	if failed {
		r.fail.add(1, now.Sub(begun))
		return
	}
	r.last.Store(now.UnixMilli())
	r.rows.Add(int64(rows))
	r.success.add(1, now.Sub(begun))
}

// Refused counts a request that failed before it could begin: it took no time.
func (r *Recorder) Refused() { r.fail.add(1, 0) }

// Run is one execution: when its phases ended, and what took part in it.
type Run struct {
	Begun, Fed, Ran, Done time.Time
	Rows                  int           // before padding
	Requests              int           // whose first row was in this Run
	Queued                time.Duration // that those waited, together
}

// Executed counts a Run that succeeded.
func (r *Recorder) Executed(run *Run) {
	input, infer, output := run.Fed.Sub(run.Begun), run.Ran.Sub(run.Fed), run.Done.Sub(run.Ran)
	n := time.Duration(run.Requests)
	r.runs.Add(1)
	r.queue.add(run.Requests, run.Queued)
	r.input.add(run.Requests, n*input)
	r.infer.add(run.Requests, n*infer)
	r.output.add(run.Requests, n*output)

	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.batches[run.Rows]
	if b == nil {
		if r.batches == nil {
			r.batches = map[int]*Batch{}
		}
		b = &Batch{Rows: run.Rows}
		r.batches[run.Rows] = b
	}
	for _, phase := range []struct {
		to   *Duration
		took time.Duration
	}{{&b.Input, input}, {&b.Infer, infer}, {&b.Output, output}} {
		phase.to.Count++
		phase.to.Time += phase.took
	}
}

// Snapshot reads the state.
func (r *Recorder) Snapshot() Snapshot {
	s := Snapshot{
		Inferences: r.rows.Load(), Executions: r.runs.Load(),
		Success: r.success.read(), Fail: r.fail.read(), Queue: r.queue.read(),
		Input: r.input.read(), Infer: r.infer.read(), Output: r.output.read(),
	}
	if last := r.last.Load(); last > 0 {
		s.LastInference = time.UnixMilli(last)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range r.batches {
		s.Batches = append(s.Batches, *b)
	}
	slices.SortFunc(s.Batches, func(a, b Batch) int { return a.Rows - b.Rows })
	return s
}
