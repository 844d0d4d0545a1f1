package repository

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/panics"
	"sluicegate/go_infer/internal/savedmodel"
	"sluicegate/go_infer/internal/status"
)

// tend keeps one model as it shall be: look, do what there is to do, wait for a reason to look again.
func (r *Repository) tend(ctx context.Context, m *served) {
	defer r.tending.Done()
	for {
		r.mu.Lock()
		asked, removed, base := m.asked, m.removed, m.config.BasePath
		m.looked = asked
		r.mu.Unlock()
		if !removed {
			places, err := r.scan(ctx, base)
			if ctx.Err() != nil {
				return
			}
			r.found(m, places, err)
			r.renew(m)
		}
		until := r.act(ctx, m)
		if ctx.Err() != nil {
			return
		}
		r.mu.Lock()
		if !slices.ContainsFunc(m.versions, func(v *version) bool {
			return v.aspired && v.wanted && (v.state == Start && v.err == nil || v.giveUp != nil)
		}) {
			m.done = max(m.done, asked)
		}
		if m.removed {
			m.versions = slices.DeleteFunc(m.versions, func(v *version) bool { return v.giveUp == nil && (v.state == End || v.state == Start) })
		}
		gone := m.removed && len(m.versions) == 0
		if gone && r.models[m.name] == m {
			delete(r.models, m.name)
		}
		r.broadcast()
		r.mu.Unlock()
		if gone || !m.wait(ctx, until, r.options.Poll) {
			return
		}
	}
}

// wait waits for the earliest of: somebody asks, it is time for the next attempt, it is time to poll. False if the model is gone.
func (m *served) wait(ctx context.Context, until time.Time, poll time.Duration) bool {
	patience := poll
	if !until.IsZero() {
		if left := max(time.Until(until), time.Millisecond); patience == 0 || left < patience {
			patience = left
		}
	}
	var timer <-chan time.Time
	if patience > 0 {
		t := time.NewTimer(patience)
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-m.wake:
	case <-timer:
	case <-ctx.Done():
		return false
	}
	return true
}

// look asks for another look at a model's directory. Called with the lock held for writing.
func (m *served) look() {
	m.asked++
	m.nudge()
}

// nudge has the model tended now.
func (m *served) nudge() {
	select {
	case m.wake <- struct{}{}:
	default: // somebody has asked already
	}
}

// found takes in what lies in the base path. A base path that cannot be read, or is empty, changes nothing: whoever wants a model gone
// says so in the config.
func (r *Repository) found(m *served, places []Place, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		if m.scanError == nil || m.scanError.Error() != err.Error() {
			r.options.Log.Warn("model base path", "model", m.name, "error", err.Error())
		}
		m.scanError = err
		return
	}
	m.scanError = nil
	on := map[int64]Place{}
	for _, place := range places {
		on[place.Number] = place
	}
	// What ended and is gone from disk is forgotten.
	m.versions = slices.DeleteFunc(m.versions, func(v *version) bool {
		_, there := on[v.place.Number]
		gone := !there && (v.state == End || v.state == Start)
		if gone {
			v.leave()
		}
		return gone
	})
	r.aspire(m, places)
	lost := map[string]int64{}
	for label, number := range m.pending {
		if _, there := on[number]; !there {
			lost[label] = number
			if before, known := m.lost[label]; !known || before != number {
				r.options.Log.Warn("a label points at a version that there is not", "model", m.name, "label", label, "version", number)
			}
		}
	}
	m.lost = lost
}

// aspire decides which versions shall be served and makes those known that were not. Called with the lock held for writing.
func (r *Repository) aspire(m *served, places []Place) {
	var numbers []int64
	for _, place := range places {
		numbers = append(numbers, place.Number)
	}
	pointed := map[int64]bool{}
	for _, labels := range []map[string]int64{m.labels, m.pending} {
		for _, number := range labels {
			pointed[number] = true
		}
	}
	for _, shares := range [][]share{m.split, shadows(m.shadow)} {
		for i := range shares {
			if number, known := m.target(&shares[i]); known {
				pointed[number] = true
			}
		}
	}
	shall := map[int64]bool{}
	if !m.parked && !m.removed {
		for _, number := range aspired(m.config.Policy, numbers, m.withdrawn, pointed) {
			shall[number] = true
		}
	}
	for _, place := range places {
		if shall[place.Number] && m.version(place.Number) == nil {
			m.versions = append(m.versions, &version{place: place})
		}
	}
	slices.SortFunc(m.versions, func(a, b *version) int { return cmp.Compare(a.place.Number, b.place.Number) })
	highest := int64(-1)
	for number := range shall {
		highest = max(highest, number)
	}
	for _, v := range m.versions {
		was, number := v.aspired, v.place.Number
		v.aspired = shall[number]
		if v.aspired && !was {
			v.aside = m.lazy && number == highest && m.answer != nil && (number > m.answer.place.Number || !shall[m.answer.place.Number])
			v.wanted = v.wanted || !m.lazy || v.aside
			if v.state == End {
				v.state, v.err, v.failures, v.due = Start, nil, 0, time.Time{}
			}
		}
		for _, place := range places {
			switch {
			case place.Number != v.place.Number || place == v.place || v.trying:
			case v.lease == nil:
				v.leave()
				v.place = place
			case v.moved != place:
				v.moved = place
				r.options.Log.Warn("a version lies elsewhere now; what is loaded goes on being served until it is unloaded", "model", m.name,
					"version", place.Number, "served", v.place.Directory, "now", place.Directory)
			}
		}
	}
	m.settleSpares()
	for _, v := range m.versions {
		if !v.aspired && !v.spare && v.lease == nil && v.state != Unloading && !v.trying {
			v.leave()
		}
	}
	m.settleAnswer()
}

// settleSpares finds what may still be loaded although it shall no longer be served: of lazy models, as long as nothing that shall has
// been loaded, for that may turn out to be broken.
func (m *served) settleSpares() {
	any, proven := false, false
	for _, v := range m.versions {
		any, proven = any || v.aspired, proven || v.aspired && v.proven
	}
	for _, v := range m.versions {
		v.spare = m.lazy && any && !proven && !v.aspired && v.proven && v.state != End
		if !v.aspired && !v.spare && v.state == Start {
			v.state = End
		}
	}
}

func shadows(s *share) []share {
	if s == nil {
		return nil
	}
	return []share{*s}
}

// act takes one step after the other until there is none; the result is when to look again, zero if only when something happens.
func (r *Repository) act(ctx context.Context, m *served) time.Time {
	for ctx.Err() == nil {
		r.mu.Lock()
		m.wantShadow()
		views := make([]view, len(m.versions))
		for i, v := range m.versions {
			views[i] = v.view()
		}
		what, index, until := next(views, time.Now())
		if what == rest {
			r.mu.Unlock()
			return until
		}
		v := m.versions[index]
		if what == unload {
			r.retire(m, v, End)
			r.mu.Unlock()
			continue
		}
		if v.place.From != "" && v.held == nil {
			r.fetch(m, v)
			r.mu.Unlock()
			continue
		}
		v.trying = true
		r.mu.Unlock()
		if !r.attempt(ctx, m, v) {
			return time.Now()
		}
	}
	return time.Time{}
}

// attempt loads a version aside, and publishes it if it is whole. False: there is something else to do for the model first.
func (r *Repository) attempt(ctx context.Context, m *served, v *version) bool {
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if v.trying = false; v.lease == nil && v.state != Unloading { // it did not come to be loaded
			v.letGo()
		}
	}()
	r.mu.RLock()
	place := v.place // it stays while the version is tried
	r.mu.RUnlock()
	before, unseen := savedmodel.Look(place.Directory) // what cannot be seen, the loader explains
	if unseen == nil {
		if due := r.notYet(v, before, time.Now()); !due.IsZero() {
			r.mu.Lock()
			v.due = due
			r.mu.Unlock()
			return true
		}
	}
	if made, err := r.room(ctx, m, v, before.Bytes); err != nil {
		r.failed(m, v, before, err)
		return true
	} else if !made {
		return false
	}
	// Only now: who waits for room must not keep others from loading.
	if !r.turn(ctx, v) {
		return false
	}
	defer func() { <-r.loads }()
	r.mu.Lock()
	v.state, v.err = Loading, nil
	r.mu.Unlock()
	before, unseen = savedmodel.Look(place.Directory)
	r.mu.Lock()
	v.bytes = reckon(before.Bytes)
	r.broadcast()
	r.mu.Unlock()

	started := time.Now()
	var loaded *model.Model
	err := panics.Guard(r.options.Log, "a load", func() (err error) {
		loaded, err = r.options.Load(m.name, place.Number, place.Directory)
		return err
	})
	took := time.Since(started)
	if err == nil {
		if after, look := savedmodel.Look(place.Directory); look != unseen || after != before {
			r.free(loaded)
			err = status.Errorf(status.Unavailable, "%s: its files changed while it was loaded; not copied completely", place.Directory)
		}
	}
	if err != nil {
		r.failed(m, v, before, err)
		return true
	}
	r.mu.Lock()
	v.took, v.failures, v.tried = took, 0, savedmodel.Print{}
	v.loaded, v.idle, v.since = time.Now(), time.Time{}, time.Time{}
	if v.used.Store(onlyCopies); !v.modest {
		v.used.Store(r.clock.Add(1))
	}
	v.modest = false
	v.lease, v.state, v.proven, v.aside = newLease(loaded), Available, true, false
	r.serving.Add(1)
	m.settleSpares()
	for label, number := range m.pending {
		if number == v.place.Number {
			m.labels[label] = number
			delete(m.pending, label)
		}
	}
	m.settleAnswer()
	r.broadcast()
	r.mu.Unlock()
	r.options.Log.Info("model loaded", "model", m.name, "version", place.Number, "ms", took.Milliseconds(), "signatures", loaded.SignatureNames())
	return true
}

// turn waits for a place to load a version; false if there is none to be had.
func (r *Repository) turn(ctx context.Context, v *version) bool {
	select {
	case r.loads <- struct{}{}:
		return true
	default:
	}
	r.mu.Lock()
	given := r.forgo(v)
	r.mu.Unlock()
	if given {
		return false
	}
	select {
	case r.loads <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// retire takes a version out of service at once, and frees it when the last request has let go; after is its state then. Called with
// the lock held for writing.
func (r *Repository) retire(m *served, v *version, after State) <-chan struct{} {
	lease, number, unloaded := v.lease, v.place.Number, make(chan struct{})
	v.lease, v.state = nil, Unloading
	m.settleAnswer()
	r.broadcast()
	go func() {
		defer close(unloaded)
		lease.Release()
		<-lease.left
		r.serving.Add(-1)
		r.free(lease.Model)
		r.options.Log.Info("model unloaded", "model", m.name, "version", number)
		r.mu.Lock()
		v.letGo()
		v.state, v.bytes = after, 0
		if after == End && v.aspired && r.context.Err() == nil { // it was asked for again meanwhile
			v.state = Start
		}
		m.nudge()
		r.broadcast()
		r.mu.Unlock()
	}()
	return unloaded
}

// free frees what Load made.
func (r *Repository) free(m *model.Model) {
	_ = panics.Guard(r.options.Log, "an unload", func() error { r.options.Close(m); return nil })
}

// unserved is why a model has no version that answers.
func (m *served) unserved() error {
	if m.scanError != nil && len(m.versions) == 0 {
		return m.scanError
	}
	for _, v := range slices.Backward(m.versions) {
		if v.err != nil {
			return fmt.Errorf("no version of model %s can be served; the last failure: %w", m.name, v.err)
		}
	}
	return fmt.Errorf("no version of model %s can be served: its version policy chooses none of those in %s", m.name, m.config.BasePath)
}
