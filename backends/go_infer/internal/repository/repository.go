// Package repository holds the models this server serves: which versions exist, in what state each is, and which answers a request.
//
// Contract: a version answers only while it is AVAILABLE, which it becomes after it was checked and warmed aside. A version that cannot
// be loaded ends in END with the reason, harms no other, and is tried again when its files change. A version that is in use is not
// freed. What shall be served can be changed at any time (Apply, SetLabel, SetTraffic, Rollback), wholly or not at all.
// The states and their names are TF-Serving's ModelVersionStatus.State.
//
// Inside: every model has one goroutine (tend) that looks at its directory, decides the next step (policy.go) and takes it; requests
// only look up who answers (routing.go), under a read lock held for nanoseconds.
package repository

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/modelconfig"
	"sluicegate/go_infer/internal/status"
)

// Loader makes a model of a version's directory: checked, loaded, warm.
type Loader func(name string, version int64, directory string) (*model.Model, error)

// Options say how a repository works. Load is required; the zero value of everything else is good.
type Options struct {
	Load   Loader
	Close  func(*model.Model)                                      // frees what Load made; default (*model.Model).Close
	Scan   func(ctx context.Context, base string) ([]Place, error) // what lies below a base path; default Scan
	Remote Remote                                                  // of base paths that are URLs; default: they are refused
	Log    *slog.Logger                                            // default: none

	Poll    time.Duration    // between two looks at the base paths; 0: only when asked to
	Settle  time.Duration    // a version's files must have been left alone for so long before it is loaded
	Loads   int              // versions loaded at the same time; default 1
	Retries int              // of a version that cannot be loaded and whose files do not change
	Every   time.Duration    // between those
	Backoff [2]time.Duration // before a version whose files changed is tried again: first, and at most; default 500 ms, 30 s

	Shadows  int                                       // copies for shadow versions being answered at the same time, per model; default 4
	Shadowed func(model string, outcome model.Outcome) // is told what became of each copy

	Lazy     bool          // load a version when it is first asked for
	LazyWait time.Duration // that a request waits for that
	Budget   int64         // bytes that all loaded versions may take together, as reckoned; 0: not bounded
	Stay     Stay          // of a version just loaded, before it makes room for others
}

// Repository is the set of models. Safe for concurrent use.
type Repository struct {
	options Options
	context context.Context
	stop    context.CancelFunc
	loads   chan struct{} // one place for each load at a time
	tending sync.WaitGroup
	clock   atomic.Int64 // acquisitions, if there is a budget
	serving atomic.Int64 // versions that are AVAILABLE, or in use still

	applying sync.Mutex // one change of what shall be served at a time
	mu       sync.RWMutex
	models   map[string]*served
	traffic  []modelconfig.Traffic
	line     []*version    // that need something unloaded, who waits longest first
	changed  chan struct{} // closed and replaced whenever a state changes
}

// served is one model. Guarded by the repository's lock.
type served struct {
	name     string
	config   modelconfig.Model
	versions []*version // ascending
	lazy     bool       // versions are loaded when they are asked for
	answer   *version   // to requests that ask for nothing in particular; nil: none can
	latest   *version   // lazy models: what such requests mean, loaded or not; nil: answer
	labels   map[string]int64
	pending  map[string]int64 // labels of a model that is new: to be set once their versions are loaded
	lost     map[string]int64 // those of them whose versions are not in the base path
	split    []share
	shadow   *share
	mirror   *model.Shadow // what shadow comes to, for those who answer
	shade    atomic.Bool   // the shadow is not loaded and there are copies for it: who tends the model is to have it loaded
	shaded   atomic.Int64  // when that was asked for, in nanoseconds since 1970

	withdrawn map[int64]bool // by Rollback
	parked    bool           // by Unload
	removed   bool           // by Apply
	scanError error          // of the last look at the base path
	asked     int64          // looks asked for
	looked    int64          // those of them that were begun
	stuck     int64          // those of them after which a version waits for memory
	done      int64          // looks that were followed by everything there was to do
	wake      chan struct{}
}

// New makes an empty repository; Apply says what it serves.
func New(options Options) *Repository {
	if options.Close == nil {
		options.Close = (*model.Model).Close
	}
	if options.Scan == nil {
		options.Scan = Scan
	}
	if options.Log == nil {
		options.Log = slog.New(slog.DiscardHandler)
	}
	options.Loads = max(1, options.Loads)
	if options.Shadows == 0 {
		options.Shadows = 4
	}
	if options.Shadowed == nil {
		options.Shadowed = func(string, model.Outcome) {}
	}
	if options.Backoff[0] == 0 {
		options.Backoff = [2]time.Duration{500 * time.Millisecond, 30 * time.Second}
	}
	r := &Repository{options: options, models: map[string]*served{}, changed: make(chan struct{}),
		loads: make(chan struct{}, options.Loads)}
	r.context, r.stop = context.WithCancel(context.Background())
	return r
}

// Acquire finds the version that answers and holds it until the lease is released. If models are lazy, it waits for the version to be
// loaded: for Options.LazyWait, and no longer than ctx. The texts of refusals are TF-Serving's.
func (r *Repository) Acquire(ctx context.Context, name string, wanted Wanted) (*Lease, error) {
	r.mu.RLock()
	lease, v, err := r.acquire(name, wanted)
	r.mu.RUnlock()
	if lease != nil || !r.options.Lazy {
		return lease, err
	}
	return r.await(ctx, name, wanted, v, err)
}

// Held is Acquire for who does not wait: nil if there is no version that answers now, or if chance decides and may fall on one that does
// not. For then Acquire asks chance, and if it were asked twice shares that are not loaded would get less than theirs.
func (r *Repository) Held(name string, wanted Wanted) *Lease {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if m := r.models[name]; m != nil && wanted == (Wanted{}) && m.partial() {
		return nil
	}
	lease, _, _ := r.acquire(name, wanted)
	return lease
}

// acquire is called with the lock held. Without a lease it says which version it would be, and why it cannot.
func (r *Repository) acquire(name string, wanted Wanted) (*Lease, *version, error) {
	m := r.models[name]
	if m == nil {
		if wanted.Label != "" {
			return nil, nil, unknownLabel(wanted.Label)
		}
		return nil, nil, absent(name, wanted, nil)
	}
	v, err := m.find(wanted)
	if err != nil {
		return nil, nil, err
	}
	if v == nil || v.lease == nil {
		if len(m.versions) == 0 && m.done < m.asked { // nobody has looked yet what there is
			return nil, nil, status.Errorf(status.Unavailable, "Servable is still loading: %s", wanted.request(name))
		}
		return nil, v, absent(name, wanted, v)
	}
	return r.hold(v), v, nil
}

// hold adds a hold to a version's lease; nil if it is not loaded. Called with the lock held.
func (r *Repository) hold(v *version) *Lease {
	if v.lease == nil {
		return nil
	}
	v.lease.holds.Add(1)
	if r.options.Budget > 0 {
		v.used.Store(r.clock.Add(1))
	}
	return v.lease
}

// Glance is the model that would answer now, neither held nor waited for; nil: none would, or chance decides which. Whoever goes by what it
// says, of its queue for instance, must not touch its tensors.
func (r *Repository) Glance(name string, wanted Wanted) *model.Model {
	r.mu.RLock()
	defer r.mu.RUnlock()
	m := r.models[name]
	if m == nil || len(m.split) > 0 && wanted == (Wanted{}) {
		return nil
	}
	if v, err := m.find(wanted); err == nil && v != nil && v.lease != nil {
		return v.lease.Model
	}
	return nil
}

// Serves says whether any version of any model answers, or has requests to answer still.
func (r *Repository) Serves() bool { return r.serving.Load() > 0 }

// Versions lists a model's versions, newest first as TF-Serving does; nil if the model is unknown.
func (r *Repository) Versions(name string) []Version {
	r.mu.RLock()
	defer r.mu.RUnlock()
	m := r.models[name]
	if m == nil {
		return nil
	}
	var all []Version
	for _, v := range slices.Backward(m.versions) {
		var labels []string
		for label, number := range m.labels {
			if number == v.place.Number {
				labels = append(labels, label)
			}
		}
		slices.Sort(labels)
		all = append(all, Version{Number: v.place.Number, State: v.state, Err: v.err, Took: v.took, Bytes: v.bytes, Labels: labels})
	}
	return all
}

// Names lists the models, sorted.
func (r *Repository) Names() []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Sorted(maps.Keys(r.models))
}

// broadcast tells everybody who waits that something changed. Called with the lock held for writing.
func (r *Repository) broadcast() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// until waits until condition, called with the lock held, is true; or for ctx.
func (r *Repository) until(ctx context.Context, condition func() bool) error {
	for {
		r.mu.RLock()
		met, changed := condition(), r.changed
		r.mu.RUnlock()
		if met {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Close unloads everything; requests that run are waited for.
func (r *Repository) Close() {
	r.applying.Lock()
	defer r.applying.Unlock()
	r.stop()
	r.tending.Wait()
	var left []<-chan struct{}
	r.mu.Lock()
	for _, m := range r.models {
		for _, v := range m.versions {
			if v.lease != nil {
				left = append(left, r.retire(m, v, End))
			}
		}
	}
	r.mu.Unlock()
	for _, unloaded := range left {
		<-unloaded
	}
	_ = r.until(context.Background(), func() bool { return !r.unloading() })
}

func (r *Repository) unloading() bool {
	for _, m := range r.models {
		for _, v := range m.versions {
			if v.state == Unloading {
				return true
			}
		}
	}
	return false
}
