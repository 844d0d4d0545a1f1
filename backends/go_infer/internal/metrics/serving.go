package metrics

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"sluicegate/go_infer/internal/status"
)

// Serving is what one model did, under TF-Serving's names: its dashboards and alerts go on working.
// Sources: tensorflow_serving/servables/tensorflow/util.cc, tensorflow/cc/saved_model/loader.cc,
// tensorflow_serving/util/prometheus_exporter.cc (a metric /a/b is called :a:b).
type Serving struct {
	name     string
	requests [status.Unauthenticated + 1]atomic.Int64
	latency  [len(apis)][len(entrypoints)]servingHistogram
	shadows  [len(shadowOutcomes)]atomic.Int64
}

// API is a method of TF-Serving's; Entrypoint is the protocol it came over.
type (
	API        int
	Entrypoint int
)

// The APIs that TF-Serving tells apart.
const (
	PredictAPI API = iota
	ClassifyAPI
	RegressAPI
)

// The entry points.
const (
	REST Entrypoint = iota
	GRPC
)

var (
	apis           = [...]string{"Predict", "Classify", "Regress"}
	entrypoints    = [...]string{"REST", "GRPC"}
	shadowOutcomes = [...]string{"answered", "failed", "skipped"}
)

// servingHistogram has TF-Serving's buckets: 33 of microseconds, from 10 on each 1.8 times the one before.
type servingHistogram struct {
	counts [34]atomic.Int64
	sum    atomic.Int64 // nanoseconds
}

var servingBounds = func() (bounds [33]float64) {
	for i := range bounds {
		bounds[i] = 10 * math.Pow(1.8, float64(i))
	}
	return bounds
}()

func (h *servingHistogram) observe(took time.Duration) {
	micros, i := float64(took)/1e3, 0
	for i < len(servingBounds) && micros >= servingBounds[i] {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(int64(took))
}

// Serving finds the counters of a model that is served. Never call it with a name that a client made up.
func (r *Registry) Serving(name string) *Serving {
	for {
		old := r.serving.Load()
		if old != nil {
			if s := (*old)[name]; s != nil {
				return s
			}
		}
		s, all := &Serving{name: name}, map[string]*Serving{}
		if old != nil {
			for other, kept := range *old {
				all[other] = kept
			}
		}
		all[name] = s
		if r.serving.CompareAndSwap(old, &all) {
			return s
		}
	}
}

// Answered counts a request that was answered, or refused with err.
func (s *Serving) Answered(api API, entrypoint Entrypoint, err error, took time.Duration) {
	code := status.OK
	if err != nil {
		code = status.From(err).Code
	}
	s.requests[code].Add(1)
	if err == nil {
		s.latency[api][entrypoint].observe(took)
	}
}

// Shadow counts a copy for a shadow version: 0 answered, 1 failed, 2 skipped.
func (s *Serving) Shadow(outcome int) { s.shadows[outcome].Add(1) }

// load is what loading a version took, all attempts together.
type load struct {
	micros, good, bad int64
	last              int64 // attempt, in attempts of the process
	over              bool  // it was unloaded
}

// Loaded counts an attempt to load a version, MODEL/NUMBER.
func (r *Registry) Loaded(version string, good bool, took time.Duration) {
	r.loading.Lock()
	defer r.loading.Unlock()
	if r.loads == nil {
		r.loads = map[string]*load{}
	}
	l := r.loads[version]
	if l == nil {
		l = &load{}
		r.loads[version] = l
	}
	r.attempts++
	l.last, l.over = r.attempts, false
	l.micros += took.Microseconds()
	if good {
		l.good++
	} else {
		l.bad++
	}
	r.fold(mostLoads, func(*load) bool { return true })
}

// fold keeps apart at most so many of the versions that count: the loads of the others, tried least recently, are those of their
// models' unloaded versions from now on. Called with the lock held.
func (r *Registry) fold(most int, counts func(*load) bool) {
	var versions []string
	for version, l := range r.loads {
		if counts(l) && !strings.HasSuffix(version, "/"+unloaded) {
			versions = append(versions, version)
		}
	}
	if len(versions) <= most {
		return
	}
	version := slices.MinFunc(versions, func(a, b string) int { return cmp.Compare(r.loads[a].last, r.loads[b].last) })
	total := version[:strings.LastIndexByte(version, '/')+1] + unloaded
	l, sum := r.loads[version], r.loads[total]
	if sum == nil {
		sum = &load{}
		r.loads[total] = sum
	}
	sum.micros, sum.good, sum.bad = sum.micros+l.micros, sum.good+l.good, sum.bad+l.bad
	delete(r.loads, version)
}
