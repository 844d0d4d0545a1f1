// Package metrics counts in plain integers and prints them in Prometheus' text format.
//
// Invariants: counting allocates nothing and takes no lock; labels come from fixed sets (never a path or a client), so the number of
// series is bounded.
package metrics

import (
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"sluicegate/go_infer/internal/batch"
)

// Endpoint is what a request asked for.
type Endpoint int

// The endpoints; Other is everything that has no meaning here.
const (
	Predict Endpoint = iota
	Classify
	Regress
	Infer
	Preprocess
	Status
	Metadata
	Health
	Metrics
	ModelInfer
	Control
	Other
	endpoints
)

var endpointNames = [endpoints]string{
	"predict", "classify", "regress", "infer", "preprocess", "status", "metadata", "health", "metrics", "model_infer", "repository", "other",
}

// codes are the HTTP codes that have a counter of their own; any other counts as the last.
var codes = [...]int{200, 400, 404, 405, 408, 411, 413, 415, 429, 499, 500, 501, 503, 504, 0}

var (
	latencyBounds = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	runBounds     = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5}
	batchBounds   = []float64{1, 2, 4, 8, 16, 32, 64, 128, 256}
)

// histogram is cumulative only when printed.
type histogram struct {
	bounds []float64
	counts [16]atomic.Int64 // the last used one is +Inf
	sum    atomic.Int64     // in the unit below
	unit   float64          // value of one of sum
}

func (h *histogram) observe(value float64) {
	i := 0
	for i < len(h.bounds) && value > h.bounds[i] {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(int64(value / h.unit))
}

// Registry holds every counter of the process.
type Registry struct {
	requests [endpoints][len(codes)]atomic.Int64
	latency  [endpoints]histogram
	inFlight atomic.Int64
	models   atomic.Pointer[[]*Model]
	gauges   []gauge
	serving  atomic.Pointer[map[string]*Serving]
	retiring sync.RWMutex // for reading: a scrape
	loading  sync.Mutex
	loads    map[string]*load
	attempts int64
}

type gauge struct {
	name, kind, help string
	read             func() float64
}

// New makes a registry.
func New() *Registry {
	r := &Registry{}
	for i := range r.latency {
		r.latency[i].bounds, r.latency[i].unit = latencyBounds, 1e-9
	}
	r.models.Store(&[]*Model{})
	return r
}

// Gauge adds a value that is read when somebody scrapes. Only before serving.
func (r *Registry) Gauge(name, help string, read func() float64) {
	r.gauges = append(r.gauges, gauge{name, "gauge", help, read})
}

// Counter is Gauge for a value that only grows.
func (r *Registry) Counter(name, help string, read func() float64) {
	r.gauges = append(r.gauges, gauge{name, "counter", help, read})
}

// InFlight is the number of requests being answered now.
func (r *Registry) InFlight() int64 { return r.inFlight.Load() }

// Waiting is the number of rows that wait for a Run, of all models.
func (r *Registry) Waiting() int {
	rows := 0
	for _, m := range *r.models.Load() {
		if waiting := m.waiting.Load(); waiting != nil {
			rows += (*waiting)()
		}
	}
	return rows
}

// Begin counts a request in; the result is to be passed to End.
func (r *Registry) Begin() time.Time {
	r.inFlight.Add(1)
	return time.Now()
}

// Undo takes Begin back.
func (r *Registry) Undo() { r.inFlight.Add(-1) }

// End counts a request out.
func (r *Registry) End(endpoint Endpoint, code int, begun time.Time) {
	r.inFlight.Add(-1)
	slot := len(codes) - 1
	for i, known := range codes {
		if known == code {
			slot = i
			break
		}
	}
	r.requests[endpoint][slot].Add(1)
	r.latency[endpoint].observe(time.Since(begun).Seconds())
}

// Model counts for one loaded version; it implements batch.Events.
type Model struct {
	name, version string
	waiting       atomic.Pointer[func() int]
	tally         atomic.Pointer[func() batch.Tally]
	rows          histogram
	run           histogram
	expired, gone atomic.Int64
}

// Model finds the counters of one version, or makes them.
func (r *Registry) Model(name string, version int64) *Model {
	return r.find(name, strconv.FormatInt(version, 10))
}

func (r *Registry) find(name, version string) *Model {
	for _, known := range *r.models.Load() {
		if known.name == name && known.version == version {
			return known
		}
	}
	m := &Model{name: name, version: version}
	m.rows.bounds, m.rows.unit = batchBounds, 1
	m.run.bounds, m.run.unit = runBounds, 1e-9
	for {
		old := r.models.Load()
		all := append(append([]*Model{}, *old...), m)
		if r.models.CompareAndSwap(old, &all) {
			return m
		}
	}
}

// Batch counts a Run that is about to start.
func (m *Model) Batch(_, rows int) { m.rows.observe(float64(rows)) }

// Ran counts a finished Run.
func (m *Model) Ran(took time.Duration) { m.run.observe(took.Seconds()) }

// Dropped counts work that cost no Run: its deadline had passed, or else its client had left.
func (m *Model) Dropped(expired bool) {
	if expired {
		m.expired.Add(1)
	} else {
		m.gone.Add(1)
	}
}

// Queue says how to read the model's queue depth; nil: it has none any more.
func (m *Model) Queue(waiting func() int) {
	if waiting == nil {
		m.waiting.Store(nil)
		return
	}
	m.waiting.Store(&waiting)
}

// Outcomes says how to read what became of the model's requests.
func (m *Model) Outcomes(tally func() batch.Tally) { m.tally.Store(&tally) }

// ServeHTTP answers a scrape.
func (r *Registry) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = w.Write(r.Append(nil))
}
