package repository

import (
	"context"
	"maps"

	"sluicegate/go_infer/internal/status"
)

// SetLabel points a label at a version that is loaded, at once.
func (r *Repository) SetLabel(name, label string, number int64) error {
	r.applying.Lock()
	defer r.applying.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	m, err := r.known(name)
	if err != nil {
		return err
	}
	if label == "" {
		return status.Errorf(status.InvalidArgument, "a label needs a name")
	}
	if err := m.relabelable(map[string]int64{label: number}); err != nil {
		return err
	}
	m.labels[label] = number
	delete(m.pending, label)
	m.look()
	r.options.Log.Info("label moved", "model", name, "label", label, "version", number)
	return nil
}

// Rollback withdraws the version that answers now: the policy chooses again as if it were not there, and labels that point at it move
// to the version that answers instead. If that one is loaded the change is immediate, else the old one answers until it is. It returns
// both versions. Newer versions than the one withdrawn are not held back. Restore undoes it.
func (r *Repository) Rollback(ctx context.Context, name string) (from, to int64, err error) {
	r.applying.Lock()
	defer r.applying.Unlock()
	r.mu.RLock()
	m, err := r.known(name)
	if err != nil {
		r.mu.RUnlock()
		return 0, 0, err
	}
	base, policy, answer := m.config.BasePath, m.config.Policy, m.answer
	r.mu.RUnlock()
	if answer == nil {
		return 0, 0, status.Errorf(status.FailedPrecondition, "model %s has no version that answers", name)
	}
	places, err := r.scan(ctx, base)
	if err != nil {
		return 0, 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	from = answer.place.Number
	without := maps.Clone(m.withdrawn)
	without[from] = true
	var numbers []int64
	for _, place := range places {
		if place.Number < from {
			numbers = append(numbers, place.Number)
		}
	}
	left := aspired(policy, numbers, without, nil)
	if len(left) == 0 {
		return from, 0, status.Errorf(status.FailedPrecondition, "model %s has no version below %d that its version policy would choose", name, from)
	}
	to = left[len(left)-1]
	m.withdrawn = without
	v := m.version(to)
	for label, number := range m.labels {
		switch {
		case number != from:
		case v != nil && v.lease != nil:
			m.labels[label] = to
		default:
			m.pending[label] = to // until it is loaded, the old one answers
		}
	}
	r.aspire(m, places)
	if v := m.version(to); m.lazy && v != nil && v.lease == nil { // the old one answers until it is loaded
		v.aside, v.wanted = true, true
		m.settleAnswer()
	}
	m.look()
	r.broadcast()
	r.options.Log.Info("rolled back", "model", name, "from", from, "to", to)
	return from, to, nil
}

// Restore serves again what Rollback withdrew.
func (r *Repository) Restore(name string) error {
	r.applying.Lock()
	defer r.applying.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	m, err := r.known(name)
	if err != nil {
		return err
	}
	m.withdrawn = map[int64]bool{}
	m.look()
	return nil
}

func (r *Repository) known(name string) (*served, error) {
	if m := r.models[name]; m != nil && !m.removed {
		return m, nil
	}
	return nil, status.Errorf(status.NotFound, "Could not find any versions of model %s", name)
}
