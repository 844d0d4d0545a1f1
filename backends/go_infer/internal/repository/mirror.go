package repository

import (
	"time"

	"sluicegate/go_infer/internal/model"
)

// shadeEvery is how often a shadow that is not loaded is asked for at most.
const shadeEvery = time.Second

// mirror is how the versions of a model reach their shadow.
func (r *Repository) mirror(m *served, percent int) *model.Shadow {
	return model.NewShadow(percent, r.options.Shadows, func(but *model.Model) (*model.Model, func()) { return r.shadowed(m, but) },
		func(outcome model.Outcome) { r.options.Shadowed(m.name, outcome) })
}

// shadowed holds a model's shadow, unless it is the one that has answered. A lazy model's shadow is loaded when there is something to
// copy, and until then copies are skipped: nobody waits for it.
func (r *Repository) shadowed(m *served, but *model.Model) (*model.Model, func()) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if m.shadow == nil {
		return nil, nil
	}
	v := m.meant(m.shadow)
	switch {
	case v == nil:
	case v.lease == nil:
		r.options.Shadowed(m.name, model.Skipped)
		if m.lazy && v.aspired {
			m.askShadow(time.Now())
		}
	case v.lease.Model != but:
		v.lease.holds.Add(1)
		return v.lease.Model, v.lease.Release
	}
	return nil, nil
}

// askShadow leaves word for who tends the model, unless that was done a moment ago.
func (m *served) askShadow(now time.Time) {
	last := m.shaded.Load()
	if now.UnixNano()-last < int64(shadeEvery) || !m.shaded.CompareAndSwap(last, now.UnixNano()) {
		return
	}
	m.shade.Store(true)
	m.nudge()
}

// wantShadow has the shadow loaded for copies, if that was asked for and takes nothing from anybody: neither memory that others use or
// wait for, nor a place for loads that others want. One that could not be loaded is tried again when it is due, as any other. Called with the
// lock held for writing.
func (m *served) wantShadow() {
	if !m.shade.Swap(false) || m.shadow == nil {
		return
	}
	if v := m.meant(m.shadow); v != nil && !v.wanted && v.lease == nil && m.lazy && v.aspired {
		v.wanted, v.modest = true, true
	}
}

// forgo gives a load up that would take something from others; false if it is no longer only for copies. Called with the lock held for
// writing.
func (r *Repository) forgo(v *version) bool {
	if !v.modest {
		return false
	}
	v.wanted, v.modest, v.state, v.bytes = false, false, Start, 0
	r.broadcast()
	return true
}
