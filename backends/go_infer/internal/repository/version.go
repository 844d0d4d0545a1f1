package repository

import (
	"sync/atomic"
	"time"

	"sluicegate/go_infer/internal/savedmodel"
)

// State is where a version is in its life.
type State int

// The states, in the order of a life. A version that was unloaded to make room is at the start again.
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
	Err    error         // why it is in END, or was not loaded again; nil if it was unloaded
	Took   time.Duration // to load and warm it
	Bytes  int64         // of memory that it is reckoned to take
	Labels []string      // that point at it, sorted
}

// version is one version in a repository. Guarded by the repository's lock but for used.
type version struct {
	place   Place
	moved   Place // where it lies now, if that is elsewhere than what is served
	state   State
	err     error
	took    time.Duration
	bytes   int64
	claim   int64     // bytes that it will take once they are free
	need    int64     // bytes that something must be unloaded for, while it stands in line
	free    time.Time // when what it is first in line for will no longer stay, if that goes on being used; zero: it is not known
	since   time.Time // it is waited for, or waits for memory
	loaded  time.Time
	seen    int64     // used, when who waits for its memory last looked
	idle    time.Time // since when that has been so
	lease   *Lease    // not nil exactly while AVAILABLE
	aspired bool
	wanted  bool // somebody asked for it, or models are not lazy
	modest  bool // it is loaded only if that takes nothing from others: for copies
	waiters int  // requests that wait for it to be loaded
	proven  bool // it has been loaded
	aside   bool // lazy models: others answer until it is loaded, as it is new or could not be loaded
	spare   bool // lazy models: it shall no longer be served, but nothing that shall has been loaded yet

	held   func() // lets go of what was fetched; nil if there is nothing
	giveUp func() // ends the fetch that runs; nil if there is none
	trying bool   // to load it

	failures int
	failed   time.Time        // the last time
	due      time.Time        // of the next attempt
	tried    savedmodel.Print // of the files that could not be loaded

	used atomic.Int64 // when it was last acquired, in acquisitions of the repository; or onlyCopies
}

// onlyCopies is when a version was last acquired that was loaded for copies and that no request has meant since.
const onlyCopies = 0

func (v *version) view() view {
	return view{state: v.state, failed: v.err != nil, aspired: v.aspired, spare: v.spare, wanted: v.wanted, due: v.due}
}

func (v *version) coming() bool { return v.state == Start || v.state == Loading }
