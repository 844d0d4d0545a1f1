package repository

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"sluicegate/go_infer/internal/status"
)

// Evicts says that versions may be unloaded to make room for others. Who waits for something slow should hold no lease then.
func (r *Repository) Evicts() bool { return r.options.Lazy && r.options.Budget > 0 }

// reckon is the memory that a version of so many bytes on disk is taken to need. Source: TF-Serving's kResourceEstimateRAMMultiplier.
func reckon(disk int64) int64 { return disk + disk/5 }

// room makes room for a version within the budget: from then on its bytes count. Only lazy models are unloaded for it, for only they
// come back by themselves: what was used least recently first, nothing that somebody waits for, and nothing that was loaded a moment
// ago (Options.Stay). Who needs something unloaded stands in line, who waits longest first; what fits beside everything else goes past,
// so that a version that is in use for long holds up only those who need its place. No room and no error: there is something else to
// do for the model first.
func (r *Repository) room(ctx context.Context, m *served, v *version, disk int64) (made bool, err error) {
	if r.options.Budget == 0 {
		return true, nil
	}
	need := reckon(disk)
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() {
		v.claim, m.stuck = 0, 0
		if made || err != nil || !v.aspired && !v.spare {
			v.since = time.Time{}
		}
		r.step(v)
		r.broadcast()
	}()
	for (v.aspired || v.spare) && m.asked == m.looked && ctx.Err() == nil {
		taken, staying := r.inUse(v)
		fits := staying+need <= r.options.Budget && (v.claim > 0 || staying+r.ahead(v)+need <= r.options.Budget)
		if !fits && v.claim > 0 { // something that was to go is wanted again
			v.claim = 0
			r.broadcast() // for who waits longer it may be enough now
		}
		if (!fits || len(r.line) > 0) && r.forgo(v) {
			return false, nil
		}
		if need > r.options.Budget || !fits && !r.options.Lazy {
			return false, status.Errorf(status.ResourceExhausted, "model %s version %d is reckoned to need %s; %s of the %s that "+
				"--model_memory_budget allows are taken, and nothing can be unloaded for it", m.name, v.place.Number, size(need), size(taken), size(r.options.Budget))
		}
		var due time.Time
		switch {
		case fits && taken+need <= r.options.Budget:
			v.bytes, v.state, v.err = need, Loading, nil
			return true, nil
		case fits: // when what is being unloaded has gone
			v.claim = need
			r.step(v)
		case !slices.Contains(r.line, v):
			r.queue(v, need)
			continue
		case r.line[0] == v:
			var victims []victim
			victims, due = r.victims(m, v, staying+need-r.options.Budget, time.Now())
			v.free = time.Time{}
			for _, each := range victims {
				v.free = later(v.free, each.ends)
			}
			if victims != nil && due.IsZero() {
				for _, each := range victims {
					each.version.wanted = false
					r.retire(each.owner, each.version, Start)
					r.options.Log.Info("making room", "model", each.owner.name, "version", each.version.place.Number, "for", m.name)
				}
				continue
			}
		}
		m.stuck = m.looked
		changed := r.changed
		r.mu.Unlock()
		m.pause(ctx, changed, due)
		r.mu.Lock()
	}
	return false, nil
}

// pause waits for the earliest of: a state changes, somebody asks, it is that time (zero: never).
func (m *served) pause(ctx context.Context, changed <-chan struct{}, due time.Time) {
	var timer <-chan time.Time
	if !due.IsZero() {
		t := time.NewTimer(time.Until(due))
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-changed:
	case <-m.wake:
	case <-timer:
	case <-ctx.Done():
	}
}

// queue puts a version that needs so many bytes into the line, after those that wait longer.
func (r *Repository) queue(v *version, need int64) {
	if v.since.IsZero() {
		v.since = time.Now()
	}
	v.need, v.free = need, time.Time{}
	at := slices.IndexFunc(r.line, func(other *version) bool { return other.since.After(v.since) })
	if at < 0 {
		at = len(r.line)
	}
	r.line = slices.Insert(r.line, at, v)
}

// step takes a version out of the line.
func (r *Repository) step(v *version) {
	if slices.Contains(r.line, v) {
		r.line = slices.DeleteFunc(r.line, func(other *version) bool { return other == v })
		r.broadcast()
	}
}

// inUse is the memory that all versions but one take; staying is what they will take once everything that is being unloaded is gone
// and everything that has a claim is loaded. What is being loaded for copies alone is the first to go
// once it is loaded, if others need its memory.
func (r *Repository) inUse(but *version) (taken, staying int64) {
	for _, m := range r.models {
		for _, v := range m.versions {
			if v == but {
				continue
			}
			taken += v.bytes
			if v.modest {
				continue
			}
			staying += v.claim
			if v.state != Unloading {
				staying += v.bytes
			}
		}
	}
	return taken, staying
}

// ahead is what who stands first in line needs, if that is another: small ones that go past must not starve a large one.
func (r *Repository) ahead(v *version) int64 {
	if len(r.line) == 0 || r.line[0] == v {
		return 0
	}
	return r.line[0].need
}

// victim is a version that may be unloaded, until when it stays, and until when if it goes on being used.
type victim struct {
	owner       *served
	version     *version
	rank        int
	stays, ends time.Time
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// victims are what may best be unloaded to free so many bytes for a version of a model, all at once: not what somebody waits for, rather
// what need not stay, first what was loaded for a shadow, rather what is not in use, and rather not another version of the same model. due is when the last of them need
// not stay, zero if that is now. nil: there is not enough that may ever be unloaded, until something changes.
func (r *Repository) victims(same *served, but *version, bytes int64, now time.Time) (chosen []victim, due time.Time) {
	var able []victim
	for _, m := range r.models {
		for _, v := range m.versions {
			if v == but || v.lease == nil || v.waiters > 0 {
				continue
			}
			stays, ends := r.stays(v, now)
			able = append(able, victim{m, v, rank(v, m == same), stays, ends})
		}
	}
	slices.SortFunc(able, func(a, b victim) int {
		return cmp.Or(a.stays.Compare(b.stays), cmp.Compare(a.rank, b.rank), cmp.Compare(a.version.used.Load(), b.version.used.Load()))
	})
	for i, each := range able {
		if bytes -= each.version.bytes; bytes <= 0 {
			return able[:i+1], each.stays
		}
	}
	return nil, time.Time{}
}

// rank says how much rather another version is unloaded; related: for a version of the same model.
func rank(v *version, related bool) (rank int) {
	if v.used.Load() == onlyCopies {
		return -1
	}
	if related {
		rank += 2
	}
	if v.lease.holds.Load() > 1 {
		rank++
	}
	return rank
}

// Memory is the bytes that all loaded versions are reckoned to take.
func (r *Repository) Memory() int64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	taken, _ := r.inUse(nil)
	return taken
}

func size(bytes int64) string { return fmt.Sprintf("%.1f MB", float64(bytes)/1e6) }
