// Package repository holds the models this server serves: which versions exist, in what state each is, and which answers a request.
//
// Contract: a version is found only when it is AVAILABLE, which it becomes after Load checked and warmed it. A version that cannot
// be loaded ends in END with the reason, and harms no other.
// The states and their names are TF-Serving's ModelVersionStatus.State.
package repository

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/status"
)

// State is where a version is in its life.
type State int

// The states, in the order of a life.
const (
	Start State = iota
	Loading
	Available
	Unloading
	End
)

var stateNames = [...]string{"START", "LOADING", "AVAILABLE", "UNLOADING", "END"}

func (s State) String() string { return stateNames[s] }

// Version is a version's state as told to clients.
type Version struct {
	Number int64
	State  State
	Err    error         // why it is in END, nil if it was unloaded
	Took   time.Duration // to load and warm it
	Model  *model.Model  // not nil exactly while AVAILABLE; to be looked at only, a request needs a Lease

	lease *Lease // of Model
}

// Loader makes a model of a version's directory.
type Loader func(name string, version int64, directory string) (*model.Model, error)

// Repository is the set of models. Safe for concurrent use; a lookup takes a read lock for nanoseconds.
type Repository struct {
	mu     sync.RWMutex
	models map[string][]*Version // versions ascending
}

// New makes an empty repository.
func New() *Repository { return &Repository{models: map[string][]*Version{}} }

// Place is where a version lies. TF-Serving allows leading zeros in the directory's name, so the number alone does not say.
type Place struct {
	Number    int64
	Directory string
}

// Scan lists the version directories (whole numbers) below base, ascending.
func Scan(base string) ([]Place, error) {
	entries, err := os.ReadDir(base)
	if err != nil {
		return nil, fmt.Errorf("model base path: %w", err)
	}
	var places []Place
	for _, entry := range entries {
		if number, err := strconv.ParseUint(entry.Name(), 10, 63); err == nil {
			places = append(places, Place{int64(number), filepath.Join(base, entry.Name())})
		}
	}
	if len(places) == 0 {
		return nil, fmt.Errorf("model base path %s has no version directory (a whole number, as in %s/1/saved_model.pb)", base, base)
	}
	slices.SortFunc(places, func(a, b Place) int { return cmp.Compare(a.Number, b.Number) })
	return places, nil
}

// Announce makes versions known, in state START, before any is loaded.
func (r *Repository) Announce(name string, places []Place) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, place := range places {
		r.models[name] = append(r.models[name], &Version{Number: place.Number})
	}
}

// Load loads one announced version with loader and publishes it.
func (r *Repository) Load(name string, place Place, loader Loader) (Version, error) {
	version := r.find(name, place.Number)
	r.change(func() { version.State = Loading })
	started := time.Now()
	loaded, err := loader(name, place.Number, place.Directory)
	r.change(func() {
		version.Took = time.Since(started)
		version.Model, version.Err, version.State = loaded, err, Available
		if err != nil {
			version.State = End
			return
		}
		version.lease = newLease(loaded)
	})
	return *version, err
}

func (r *Repository) change(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

func (r *Repository) find(name string, number int64) *Version {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, version := range r.models[name] {
		if version.Number == number {
			return version
		}
	}
	return nil
}

// Acquire finds the model that answers and holds it until the lease is released. The texts of refusals are TF-Serving's; a version that
// is still on its way is UNAVAILABLE, not unknown.
func (r *Repository) Acquire(_ context.Context, name string, wanted Wanted) (*Lease, error) {
	if wanted.Label != "" {
		return nil, status.Errorf(status.InvalidArgument, "Unrecognized servable version label: %s", wanted.Label)
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	coming := false
	versions := r.models[name]
	for i := len(versions) - 1; i >= 0; i-- {
		version := versions[i]
		if wanted.specific() && version.Number != wanted.Version {
			continue
		}
		if version.lease != nil {
			version.lease.holds.Add(1)
			return version.lease, nil
		}
		coming = coming || version.State == Start || version.State == Loading
	}
	text := fmt.Sprintf("Latest(%s)", name)
	if wanted.specific() {
		text = fmt.Sprintf("Specific(%s, %d)", name, wanted.Version)
	}
	if coming {
		return nil, status.Errorf(status.Unavailable, "Servable is still loading: %s", text)
	}
	return nil, status.Errorf(status.NotFound, "Servable not found for request: %s", text)
}

// Versions lists a model's versions, newest first as TF-Serving does; nil if the model is unknown.
func (r *Repository) Versions(name string) []Version {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var all []Version
	for _, version := range slices.Backward(r.models[name]) {
		all = append(all, *version)
	}
	return all
}

// Names lists the models, sorted.
func (r *Repository) Names() []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var names []string
	for name := range r.models {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Close unloads everything; requests that run are waited for.
func (r *Repository) Close() {
	for _, name := range r.Names() {
		for _, version := range r.Versions(name) {
			if version.lease == nil {
				continue
			}
			kept := r.find(name, version.Number)
			r.change(func() { kept.Model, kept.lease, kept.State = nil, nil, Unloading })
			version.lease.Release()
			<-version.lease.left
			version.Model.Close()
			r.change(func() { kept.State = End })
		}
	}
}
