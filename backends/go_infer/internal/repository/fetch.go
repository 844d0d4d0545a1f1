package repository

import (
	"context"

	"sluicegate/go_infer/internal/modelconfig"
	"sluicegate/go_infer/internal/panics"
	"sluicegate/go_infer/internal/status"
)

// Remote brings versions from elsewhere; *remote.Catalog has it. Addresses are base paths that are URLs.
type Remote interface {
	// Versions lists what there is, ascending, and where each version is or will be on this disk. It does not wait for what is slow,
	// but for the first time.
	Versions(ctx context.Context, address string) (versions []int64, directory func(version int64) string, err error)
	// Fetch brings a version, whole and checked, to its directory, where it stays until release.
	Fetch(ctx context.Context, address string, version int64) (release func(), err error)
}

// scan finds what lies below a base path, be it a directory or a URL.
func (r *Repository) scan(ctx context.Context, base string) ([]Place, error) {
	if !modelconfig.Remote(base) {
		return r.options.Scan(ctx, base)
	}
	if r.options.Remote == nil {
		return nil, status.Errorf(status.Unimplemented, "model base path %s: remote base paths are not served; copy the model to a directory", base)
	}
	numbers, directory, err := r.options.Remote.Versions(ctx, base)
	if err != nil {
		return nil, err
	}
	var places []Place
	for _, number := range numbers {
		places = append(places, Place{number, directory(number), base})
	}
	return places, nil
}

// fetch brings a version to this disk, in a goroutine of its own, so that a slow or hung repository holds up nothing else of the model.
// Meanwhile it is LOADING. Then it is where it was before and can be loaded, or has failed. Called with the lock held for writing.
func (r *Repository) fetch(m *served, v *version) {
	state, failure, place := v.state, v.err, v.place
	ctx, cancel := context.WithCancel(r.context)
	v.state, v.err, v.giveUp = Loading, nil, cancel
	r.broadcast()
	r.tending.Go(func() {
		defer cancel()
		var release func()
		err := panics.Guard(r.options.Log, "a fetch", func() (err error) {
			release, err = r.options.Remote.Fetch(ctx, place.From, place.Number)
			return err
		})
		r.mu.Lock()
		defer r.mu.Unlock()
		v.giveUp = nil
		switch given := ctx.Err() != nil; { // nobody wants it, or it lies elsewhere now
		case given:
			if err == nil {
				release()
			}
			v.state = End
			if v.aspired || v.spare {
				v.state = Start
			}
		case err != nil:
			v.err = failure // the same reason is told once
			r.fail(m, v, v.tried, status.Errorf(status.Unavailable, "it cannot be fetched: %v", err))
		default:
			v.state, v.err, v.held = state, failure, release
		}
		m.look()
		r.broadcast()
	})
}

// leave ends a fetch and lets go of what was fetched. Called with the lock held for writing.
func (v *version) leave() {
	if v.giveUp != nil {
		v.giveUp()
	}
	v.letGo()
}

// letGo allows a version's directory to be removed from the cache. Called with the lock held for writing.
func (v *version) letGo() {
	if v.held != nil {
		v.held()
		v.held = nil
	}
}
