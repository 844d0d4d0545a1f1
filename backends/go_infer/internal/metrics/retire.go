package metrics

import (
	"slices"

	"sluicegate/go_infer/internal/batch"
)

// unloaded is the version under which a model's versions that are no longer loaded are counted together: versions come and go without
// end, and each would leave some sixty series behind.
const unloaded = "unloaded"

// lastLoads are the unloaded versions, of all models, whose loads are still told apart: what the last ones took is worth knowing.
const lastLoads = 16

// mostLoads bounds the versions whose loads are counted apart; beyond it are those tried least recently.
const mostLoads = 1024

// Retire drops the series of a version that was unloaded, or could not be loaded. What it counted is added to its model's
// version="unloaded", so that the sum over a model's versions never falls. Nothing of the version is kept.
func (r *Registry) Retire(m *Model) {
	r.retiring.Lock()
	defer r.retiring.Unlock()
	if total := m.retire(r); total != nil {
		total.rows.add(&m.rows)
		total.run.add(&m.run)
		total.expired.Add(m.expired.Load())
		total.gone.Add(m.gone.Load())
		sum := total.outcome().Plus(m.outcome())
		total.Outcomes(func() batch.Tally { return sum })
	}
	m.waiting.Store(nil)
	m.tally.Store(nil)
	for {
		old := r.models.Load()
		left := slices.DeleteFunc(slices.Clone(*old), func(other *Model) bool { return other == m })
		if r.models.CompareAndSwap(old, &left) {
			break
		}
	}
	r.loading.Lock()
	defer r.loading.Unlock()
	if l := r.loads[m.name+"/"+m.version]; l != nil && l.good > 0 {
		l.over = true
		r.fold(lastLoads, func(l *load) bool { return l.over })
	}
}

// retire is the total of a model's unloaded versions; nil if this one has counted nothing.
func (m *Model) retire(r *Registry) *Model {
	if m.rows.total()+m.run.total()+m.expired.Load()+m.gone.Load() == 0 && m.outcome() == (batch.Tally{}) {
		return nil
	}
	return r.find(m.name, unloaded)
}

func (m *Model) outcome() batch.Tally {
	if read := m.tally.Load(); read != nil {
		return (*read)()
	}
	return batch.Tally{}
}

func (h *histogram) add(o *histogram) {
	for i := range h.counts {
		h.counts[i].Add(o.counts[i].Load())
	}
	h.sum.Add(o.sum.Load())
}
