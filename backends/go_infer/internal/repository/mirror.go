package repository

import "sluicegate/go_infer/internal/model"

// mirror is how the versions of a model reach their shadow.
func (r *Repository) mirror(m *served, percent int) *model.Shadow {
	return model.NewShadow(percent, r.options.Shadows, func(but *model.Model) (*model.Model, func()) {
		r.mu.RLock()
		defer r.mu.RUnlock()
		if m.shadow == nil {
			return nil, nil
		}
		v := m.able(m.shadow)
		if v == nil || v.lease.Model == but {
			return nil, nil
		}
		v.lease.holds.Add(1)
		return v.lease.Model, v.lease.Release
	}, func(outcome model.Outcome) { r.options.Shadowed(m.name, outcome) })
}
