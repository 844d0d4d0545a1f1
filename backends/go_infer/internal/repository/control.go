package repository

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"sluicegate/go_infer/internal/modelconfig"
	"sluicegate/go_infer/internal/status"
)

// Forbidden is the refusal of a request that would change what is served where requests may not. Triton refuses so with
// --model-control-mode=none, its default, but with a code that promises that it passes.
func Forbidden(what string) error {
	return status.Errorf(status.PermissionDenied, "%s is not allowed on this server; start it with --allow_model_control, or ask on its --control_port", what)
}

// What operators say, at any time. Each function changes everything it was asked to or nothing.

// Apply replaces what is served. Models that are new are loaded, those that are no longer named are unloaded, the others keep their
// versions. A label may be moved only to a version that is loaded, and given only to one that is or, for a model that is new, will be.
// A label that operators moved, or Rollback, stays where it is until the config says something else of it than before.
// The error says why the old config stays. It does not wait for loads: Settle does.
func (r *Repository) Apply(config modelconfig.Config) error {
	r.applying.Lock()
	defer r.applying.Unlock()
	if r.context.Err() != nil {
		return status.Errorf(status.Unavailable, "the server is stopping")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	named := map[string]bool{}
	for _, c := range config.Models {
		named[c.Name] = true
		if m := r.models[c.Name]; m != nil && !m.removed {
			if err := m.relabelable(m.news(c)); err != nil {
				return err
			}
		}
	}
	traffic := config.Traffic
	if traffic == nil { // what was said of models that are no longer served is void
		traffic = slices.DeleteFunc(slices.Clone(r.traffic), func(t modelconfig.Traffic) bool { return !named[t.Model] })
	}
	for _, t := range traffic {
		at := slices.IndexFunc(config.Models, func(c modelconfig.Model) bool { return c.Name == t.Model })
		if at < 0 {
			return unknownTraffic(t.Model, slices.Collect(maps.Keys(named)))
		}
		sets := []map[string]int64{config.Models[at].Labels}
		if m := r.models[t.Model]; m != nil && !m.removed {
			sets = append(sets, m.relabelled(config.Models[at], m.labels), m.relabelled(config.Models[at], m.pending))
		}
		if err := checkShares(t, sets...); err != nil {
			return err
		}
	}
	r.traffic = traffic
	for _, m := range r.models {
		if !named[m.name] {
			m.removed = true
			r.aspire(m, nil)
			m.look()
		}
	}
	for _, c := range config.Models {
		m := r.models[c.Name]
		if m == nil || m.removed {
			r.begin(c, m)
			continue
		}
		if m.config.BasePath != c.BasePath {
			m.withdrawn = map[int64]bool{}
		}
		labels, pending := m.relabelled(c, m.labels), m.relabelled(c, m.pending)
		maps.Copy(labels, m.news(c))
		m.config, m.labels, m.pending = c, labels, pending
		m.look()
	}
	r.share()
	r.broadcast()
	return nil
}

// news is what a config says of labels that the one before did not.
func (m *served) news(config modelconfig.Model) map[string]int64 {
	news := clone(config.Labels)
	maps.DeleteFunc(news, func(label string, number int64) bool {
		before, said := m.config.Labels[label]
		return said && before == number
	})
	return news
}

// relabelled is what is left of labels under a new config: not those of which it says something new, or nothing any more.
func (m *served) relabelled(config modelconfig.Model, labels map[string]int64) map[string]int64 {
	left, news := clone(labels), m.news(config)
	maps.DeleteFunc(left, func(label string, _ int64) bool {
		_, said := m.config.Labels[label]
		_, still := config.Labels[label]
		_, new := news[label]
		return new || said && !still
	})
	return left
}

func clone(labels map[string]int64) map[string]int64 {
	if labels == nil {
		return map[string]int64{}
	}
	return maps.Clone(labels)
}

// begin starts to serve a model; before is one of that name that is on its way out, or nil.
func (r *Repository) begin(config modelconfig.Model, before *served) {
	m := before
	if m == nil {
		m = &served{name: config.Name, lazy: r.options.Lazy, wake: make(chan struct{}, 1)}
		r.models[config.Name] = m
	}
	m.config, m.labels, m.pending = config, map[string]int64{}, clone(config.Labels)
	m.withdrawn, m.parked, m.removed = map[int64]bool{}, false, false
	m.asked++
	if before != nil {
		m.look()
		return
	}
	r.tending.Add(1)
	go r.tend(r.context, m)
}

// relabelable refuses labels that would point at a version that is not loaded, nor will be when it is asked for.
func (m *served) relabelable(labels map[string]int64) error {
	for _, label := range slices.Sorted(maps.Keys(labels)) {
		number := labels[label]
		if now, known := m.labels[label]; known && now == number {
			continue
		}
		v := m.version(number)
		if m.lazy && v != nil && v.aspired && v.err == nil { // who asks for it gets it loaded
			continue
		}
		if v == nil || v.lease == nil {
			return status.Errorf(status.FailedPrecondition, "Request to assign label to version %d of model %s, which is not currently "+
				"available for inference (label %q)", number, m.name, label)
		}
	}
	return nil
}

// Load loads a model's versions now: those that Unload took away, that lazy loading left, or whose files have changed. It returns when
// that is done; the error says why no version answers.
func (r *Repository) Load(ctx context.Context, name string) error { return r.park(ctx, name, false) }

// Unload takes all versions of a model out of service until Load, and returns when they are freed.
func (r *Repository) Unload(ctx context.Context, name string) error { return r.park(ctx, name, true) }

func (r *Repository) park(ctx context.Context, name string, parked bool) error {
	r.mu.Lock()
	m, err := r.known(name)
	if err != nil {
		r.mu.Unlock()
		return err
	}
	m.parked = parked
	if !parked {
		for _, v := range m.versions {
			v.wanted, v.failures = true, 0
			v.due = v.due.Truncate(0).Add(-r.options.Backoff[1])
		}
	}
	var places []Place
	for _, v := range m.versions {
		places = append(places, v.place)
	}
	r.aspire(m, places)
	m.look()
	asked := m.asked
	r.mu.Unlock()
	err = r.until(ctx, func() bool {
		if m.done < asked {
			return false
		}
		return !parked || m.idle()
	})
	if err != nil {
		return err
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if !parked && m.answer == nil && !r.options.Lazy {
		return m.unserved()
	}
	return nil
}

// idle says that nothing of the model is in memory.
func (m *served) idle() bool {
	for _, v := range m.versions {
		if v.lease != nil || v.state == Unloading || v.state == Loading {
			return false
		}
	}
	return true
}

// Look looks at all base paths now, without waiting.
func (r *Repository) Look() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.models {
		m.look()
	}
}

// Settle waits until everything that was asked for so far is loaded or refused. The error names the models that have no version that
// answers, with the reason of each; nil if all have one, or load when first used.
func (r *Repository) Settle(ctx context.Context) error {
	r.mu.RLock()
	asked := map[*served]int64{}
	for _, m := range r.models {
		asked[m] = m.asked
	}
	r.mu.RUnlock()
	err := r.until(ctx, func() bool {
		for m, n := range asked {
			if !m.removed && m.done < n && m.stuck < n {
				return false
			}
		}
		return true
	})
	if err != nil {
		return err
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	var refused []error
	for _, m := range slices.SortedFunc(maps.Keys(asked), func(a, b *served) int { return strings.Compare(a.name, b.name) }) {
		if !m.removed && !m.parked && m.answer == nil && (!r.options.Lazy || len(m.versions) == 0) {
			refused = append(refused, m.unserved())
		}
	}
	return errors.Join(refused...)
}

// Reload applies a config and waits until it is in effect. A config that is refused changes nothing; one of whose models no version can
// be served is in effect for all others, and the error (FailedPrecondition) says so.
func (r *Repository) Reload(ctx context.Context, config modelconfig.Config) error {
	if err := r.Apply(config); err != nil {
		return err
	}
	err := r.Settle(ctx)
	if err == nil || ctx.Err() != nil || r.context.Err() != nil {
		return err
	}
	return status.Errorf(status.FailedPrecondition, "the configuration is in effect, but not all of it can be served: %v", err)
}

// Entry is one version in an Index.
type Entry struct {
	Name string
	Version
}

// Lost are the versions that labels point at and that are in no base path, each with the reason and its label.
func (r *Repository) Lost() []Entry {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var all []Entry
	for _, name := range slices.Sorted(maps.Keys(r.models)) {
		m := r.models[name]
		for _, label := range slices.Sorted(maps.Keys(m.lost)) {
			if number, waits := m.pending[label]; waits {
				err := status.Errorf(status.NotFound, "label %q points at it, but it is not in %s", label, m.config.BasePath)
				all = append(all, Entry{name, Version{Number: number, State: End, Err: err, Labels: []string{label}}})
			}
		}
	}
	return all
}

// Index lists all versions of all models, by name and newest first.
func (r *Repository) Index() []Entry {
	var all []Entry
	for _, name := range r.Names() {
		for _, v := range r.Versions(name) {
			all = append(all, Entry{name, v})
		}
	}
	return all
}
