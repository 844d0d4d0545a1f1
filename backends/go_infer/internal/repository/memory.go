package repository

import (
	"context"
	"fmt"

	"sluicegate/go_infer/internal/status"
)

// reckon is the memory that a version of so many bytes on disk is taken to need. Source: TF-Serving's kResourceEstimateRAMMultiplier.
func reckon(disk int64) int64 { return disk + disk/5 }

// room makes room for a version within the budget: it unloads what was used least recently, until there is enough. Only lazy models
// are unloaded, for only they come back by themselves.
func (r *Repository) room(ctx context.Context, m *served, v *version, disk int64) error {
	if r.options.Budget == 0 {
		return nil
	}
	need := reckon(disk)
	for {
		r.mu.Lock()
		taken, owner, oldest := r.inUse(v)
		if taken+need <= r.options.Budget {
			v.bytes, v.state, v.err = need, Loading, nil // from here on it counts
			r.broadcast()
			r.mu.Unlock()
			return nil
		}
		if oldest == nil || need > r.options.Budget {
			r.mu.Unlock()
			return status.Errorf(status.ResourceExhausted, "model %s version %d is reckoned to need %s; %s of the %s that "+
				"--model_memory_budget allows are taken, and nothing can be unloaded for it", m.name, v.place.Number, size(need), size(taken), size(r.options.Budget))
		}
		oldest.wanted = false
		unloaded, number := r.retire(owner, oldest, Start), oldest.place.Number
		r.mu.Unlock()
		r.options.Log.Info("making room", "model", owner.name, "version", number, "for", m.name)
		select {
		case <-unloaded:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// inUse is the memory taken by all versions but one, and which of those that may be unloaded was used least recently.
func (r *Repository) inUse(but *version) (taken int64, owner *served, oldest *version) {
	for _, m := range r.models {
		for _, v := range m.versions {
			if v == but {
				continue
			}
			taken += v.bytes
			if r.options.Lazy && v.lease != nil && (oldest == nil || v.used.Load() < oldest.used.Load()) {
				owner, oldest = m, v
			}
		}
	}
	return taken, owner, oldest
}

// Memory is the bytes that all loaded versions are reckoned to take.
func (r *Repository) Memory() int64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	taken, _, _ := r.inUse(nil)
	return taken
}

func size(bytes int64) string { return fmt.Sprintf("%.1f MB", float64(bytes)/1e6) }
