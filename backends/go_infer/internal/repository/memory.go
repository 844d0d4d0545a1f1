package repository

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"sluicegate/go_infer/internal/status"
)

// Evicts says that versions may be unloaded to make room for others. Who waits for something slow should hold no lease then.
func (r *Repository) Evicts() bool { return r.options.Lazy && r.options.Budget > 0 }

// reckon is the memory that a version of so many bytes on disk is taken to need. Source: TF-Serving's kResourceEstimateRAMMultiplier.
func reckon(disk int64) int64 { return disk + disk/5 }

// room makes room for a version within the budget: from then on its bytes count. Only lazy models are unloaded for it, for only they
// come back by themselves: what was used least recently first, and nothing that somebody waits for. Who needs something unloaded stands
// in line; what fits beside everything else goes past, so that a version that is in use for long holds up only those who need its
// place. No room and no error: there is something else to do for the model first.
func (r *Repository) room(ctx context.Context, m *served, v *version, disk int64) (made bool, err error) {
	if r.options.Budget == 0 {
		return true, nil
	}
	need := reckon(disk)
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() {
		v.claim, m.stuck = 0, 0
		r.step(v)
		r.broadcast()
	}()
	for (v.aspired || v.spare) && m.asked == m.looked && ctx.Err() == nil {
		taken, staying := r.inUse(v)
		fits := v.claim > 0 || staying+need <= r.options.Budget
		if need > r.options.Budget || !fits && !r.options.Lazy {
			return false, status.Errorf(status.ResourceExhausted, "model %s version %d is reckoned to need %s; %s of the %s that "+
				"--model_memory_budget allows are taken, and nothing can be unloaded for it", m.name, v.place.Number, size(need), size(taken), size(r.options.Budget))
		}
		switch {
		case fits && taken+need <= r.options.Budget:
			v.bytes, v.state, v.err = need, Loading, nil
			return true, nil
		case fits: // when what is being unloaded has gone
			v.claim = need
			r.step(v)
		case !slices.Contains(r.line, v):
			v.need = need
			r.line = append(r.line, v)
			continue
		case r.line[0] == v:
			if owner, victim := r.victim(m, v); victim != nil {
				victim.wanted = false
				r.retire(owner, victim, Start)
				r.options.Log.Info("making room", "model", owner.name, "version", victim.place.Number, "for", m.name)
				continue
			}
		}
		m.stuck = m.looked
		changed := r.changed
		r.mu.Unlock()
		select {
		case <-changed:
		case <-m.wake:
		case <-ctx.Done():
		}
		r.mu.Lock()
	}
	return false, nil
}

// step takes a version out of the line.
func (r *Repository) step(v *version) {
	if slices.Contains(r.line, v) {
		r.line = slices.DeleteFunc(r.line, func(other *version) bool { return other == v })
		r.broadcast()
	}
}

// inUse is the memory that all versions but one take; staying is what they will take once everything that is being unloaded is gone
// and everything that has a claim is loaded, and so is who stands first in line: small ones that go past must not starve a large one.
func (r *Repository) inUse(but *version) (taken, staying int64) {
	for _, m := range r.models {
		for _, v := range m.versions {
			if v == but {
				continue
			}
			taken += v.bytes
			staying += v.claim
			if v.state != Unloading {
				staying += v.bytes
			}
		}
	}
	if len(r.line) > 0 && r.line[0] != but {
		staying += r.line[0].need
	}
	return taken, staying
}

// victim is what may best be unloaded for a version of a model: not what somebody waits for, rather what is not in use, and rather not
// another version of the same model.
func (r *Repository) victim(same *served, but *version) (owner *served, best *version) {
	rank := func(m *served, v *version) (cost int) {
		if m == same {
			cost += 2
		}
		if v.lease.holds.Load() > 1 {
			cost++
		}
		return cost
	}
	for _, m := range r.models {
		for _, v := range m.versions {
			if v == but || v.lease == nil || v.waiters > 0 {
				continue
			}
			if best == nil || cmp.Or(cmp.Compare(rank(m, v), rank(owner, best)), cmp.Compare(v.used.Load(), best.used.Load())) < 0 {
				owner, best = m, v
			}
		}
	}
	return owner, best
}

// Memory is the bytes that all loaded versions are reckoned to take.
func (r *Repository) Memory() int64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	taken, _ := r.inUse(nil)
	return taken
}

func size(bytes int64) string { return fmt.Sprintf("%.1f MB", float64(bytes)/1e6) }
