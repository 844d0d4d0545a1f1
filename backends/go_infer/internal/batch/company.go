package batch

import "time"

// company says how many rows are worth waiting for when a slot is free: half of those that are about, if they come soon. Pure: no clock,
// no lock.
//
// A Run costs something by itself and something for each row, so a slot that takes what little is there when it frees spends the
// machine on Runs of one row, and those who ask, parse and answer get what is left. Clients that ask again when they are answered
// come back a little after the slot has freed. How many they are is seen at the end of a Run: those whose rows it had and those that
// came meanwhile. Half of them in a Run, and the other half being read, parsed and answered, keeps both busy; to wait for all would not.
// Where requests do not overlap one is about, and nobody waits.
type company struct {
	last  int64         // when rows came
	gap   time.Duration // between two rows, a mean in which each counts a thirty-second; 0: not known
	about int           // rows, the most of late: a sixteenth of it is forgotten with each Run
}

const (
	gapStep   = 32
	aboutStep = 16
)

// came notes rows that come together. After a pause of longest nobody is about any more, and no gap counts as longer than that: so the
// mean is right again soon.
func (c *company) came(now int64, rows int, longest time.Duration) {
	gap := time.Duration(max(now-c.last, 0))
	c.last = now
	if gap >= longest {
		gap, c.about = longest, 0
	}
	each := max(gap/time.Duration(rows), 1)
	if c.gap == 0 || rows >= gapStep {
		c.gap = each
		return
	}
	c.gap = max(c.gap+(each-c.gap)*time.Duration(rows)/gapStep, 1)
}

// ran notes the end of a Run: its rows, and those that wait.
func (c *company) ran(rows, waiting int) {
	c.about = max(rows+waiting, c.about-1-c.about/aboutStep)
}

// wanted is how many rows are worth waiting for if so many wait, and how long at most. That is never longer than a Run of them takes.
func (c *company) wanted(waiting int, runs *pace, limit int) (int, time.Duration) {
	half := min(c.about/2, limit)
	if waiting >= half || c.gap == 0 {
		return waiting, 0
	}
	patience := runs.run(half)
	return min(half, waiting+int(patience/c.gap)), patience
}
