package repository

import (
	"slices"
	"time"

	"sluicegate/go_infer/internal/savedmodel"
	"sluicegate/go_infer/internal/status"
)

// What becomes of versions that could not be loaded, and when they are tried again.

// renew lets versions that could not be loaded be tried soon if their files have changed since: how often, and how long ago, others
// failed does not count against these.
func (r *Repository) renew(m *served) {
	now := time.Now()
	r.mu.RLock()
	places := map[*version]Place{}
	for _, v := range m.versions {
		if v.err != nil && v.failures > 0 && v.due.After(now) && v.place.From == "" {
			places[v] = v.place
		}
	}
	r.mu.RUnlock()
	for v, place := range places {
		found, err := savedmodel.Look(place.Directory)
		r.mu.Lock()
		if err == nil && v.failures > 0 && found != v.tried {
			v.failures, v.due = 0, v.failed.Add(r.options.Backoff[0])
		}
		r.mu.Unlock()
	}
}

// notYet is when a version may be tried, if that is not now: its files must have been left alone for a while, and what could not be
// loaded is tried again when they changed, or so many times more as a load may be repeated.
func (r *Repository) notYet(v *version, found savedmodel.Print, now time.Time) time.Time {
	if quiet := found.Changed.Add(r.options.Settle); quiet.After(now) && v.place.From == "" { // what was fetched is whole
		return quiet
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if v.failures == 0 || found != v.tried || r.options.Lazy && (!v.aside || v.waiters > 0) || status.From(v.err).Code == status.ResourceExhausted {
		return time.Time{}
	}
	later := now.Add(max(r.options.Poll, r.options.Backoff[1]))
	if v.failures > r.options.Retries {
		return later // nothing changed: no reason to hope
	}
	if at := v.failed.Add(r.options.Every); at.After(now) {
		return at
	}
	return time.Time{}
}

// failed notes why a version could not be loaded, and when to try again.
func (r *Repository) failed(m *served, v *version, tried savedmodel.Print, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail(m, v, tried, err)
	r.broadcast()
}

// fail is failed with the lock held for writing.
func (r *Repository) fail(m *served, v *version, tried savedmodel.Print, err error) {
	news := v.err == nil || v.err.Error() != err.Error()
	v.state, v.err, v.bytes, v.tried = End, err, 0, tried
	v.failures++
	v.failed, v.since = time.Now(), time.Time{}
	v.due = v.failed.Add(min(r.options.Backoff[0]<<min(v.failures-1, 20), r.options.Backoff[1]))
	if m.lazy { // the next who asks tries again, unless others can answer meanwhile
		v.aside = v.aside || slices.ContainsFunc(m.versions, func(o *version) bool { return o != v && (o.aspired || o.spare) && o.err == nil })
		v.wanted, v.state = v.aside, Start
	}
	m.settleAnswer()
	if news {
		r.options.Log.Error("model not loaded", "model", m.name, "version", v.place.Number, "error", err.Error())
	}
}
