package repository

import (
	"slices"
	"time"

	"sluicegate/go_infer/internal/modelconfig"
)

// What shall be served, and what is to be done next for it. Both are decisions over plain values: no lock, no clock, no disk.

// aspired are the versions that shall be served, of those that there are (ascending): what the policy chooses of those not withdrawn,
// and what a label or a share of the traffic points at, because taking that away would fail requests that name it.
func aspired(policy modelconfig.Policy, found []int64, withdrawn map[int64]bool, pointed map[int64]bool) []int64 {
	var open []int64
	for _, number := range found {
		if !withdrawn[number] {
			open = append(open, number)
		}
	}
	chosen := map[int64]bool{}
	switch {
	case len(policy.Specific) > 0:
		for _, number := range open {
			chosen[number] = slices.Contains(policy.Specific, number)
		}
	case policy.All:
		for _, number := range open {
			chosen[number] = true
		}
	default:
		for _, number := range open[max(0, len(open)-max(1, policy.Latest)):] {
			chosen[number] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(open), func(number int64) bool { return !chosen[number] && !pointed[number] })
}

// view is what a decision needs to know of a version.
type view struct {
	state   State
	failed  bool      // in END because it could not be loaded
	aspired bool      // it shall be served
	spare   bool      // it may be loaded again until one that shall be served is
	wanted  bool      // load it: always true if models are not lazy, else once somebody asked for it
	due     time.Time // not to be loaded before
}

type action int

const (
	rest action = iota
	load
	unload
)

// next is what to do now: load or unload the version at index, or rest; then until is when to look again (zero: when something
// happens). As TF-Serving's availability-preserving policy, it takes a version away only when one that shall be served can answer, or
// when none shall be. The newest is loaded first. views ascend.
func next(views []view, now time.Time) (what action, index int, until time.Time) {
	covered, any := false, false
	for i, v := range slices.Backward(views) {
		any = any || v.aspired
		covered = covered || v.aspired && v.state == Available
		if !v.aspired && !v.spare || !v.wanted || v.state != Start && !(v.state == End && v.failed) {
			continue
		}
		if !v.due.After(now) {
			return load, i, time.Time{}
		}
		if until.IsZero() || v.due.Before(until) {
			until = v.due
		}
	}
	for i, v := range views {
		if v.state == Available && !v.aspired && (covered || !any) {
			return unload, i, time.Time{}
		}
	}
	return rest, 0, until
}
