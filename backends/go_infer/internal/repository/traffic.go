package repository

import (
	"maps"
	"slices"
	"strings"

	"sluicegate/go_infer/internal/modelconfig"
	"sluicegate/go_infer/internal/status"
)

// SetTraffic replaces how traffic is shared between versions, of all models. A share is refused whose model or label there is not.
func (r *Repository) SetTraffic(traffic []modelconfig.Traffic) error {
	r.applying.Lock()
	defer r.applying.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range traffic {
		m := r.models[t.Model]
		if m == nil || m.removed {
			return unknownTraffic(t.Model, slices.Collect(maps.Keys(r.models)))
		}
		if err := checkShares(t, m.labels, m.pending); err != nil {
			return err
		}
	}
	r.traffic = traffic
	r.share()
	r.broadcast()
	return nil
}

func unknownTraffic(name string, there []string) error {
	slices.Sort(there)
	return status.Errorf(status.NotFound, "traffic: there is no model %q; there are: %s", name, strings.Join(there, ", "))
}

// checkShares refuses a share of a label that none of the sets has.
func checkShares(t modelconfig.Traffic, sets ...map[string]int64) error {
	shares := slices.Clone(t.Split)
	if t.Shadow != nil {
		shares = append(shares, *t.Shadow)
	}
	for _, s := range shares {
		known := s.Label == ""
		for _, labels := range sets {
			_, has := labels[s.Label]
			known = known || has
		}
		if !known {
			return status.Errorf(status.FailedPrecondition, "traffic of model %s: there is no label %q", t.Model, s.Label)
		}
	}
	return nil
}

// share gives every model its part of the traffic config. Called with the lock held for writing.
func (r *Repository) share() {
	for _, m := range r.models {
		m.split, m.shadow, m.mirror = nil, nil, nil
	}
	for _, t := range r.traffic {
		m := r.models[t.Model]
		if m == nil {
			continue
		}
		for _, s := range t.Split {
			m.split = append(m.split, share{s.Version, s.Label, s.Weight})
		}
		if t.Shadow != nil {
			m.shadow = &share{t.Shadow.Version, t.Shadow.Label, t.Shadow.Weight}
			m.mirror = r.mirror(m, t.Shadow.Weight)
		}
		m.look()
	}
	for _, m := range r.models {
		m.settleAnswer()
	}
}
