package batch

import (
	"context"
	"testing"
	"time"
)

// known are Runs of 100 us and 10 us for each row.
func known() *pace {
	p := &pace{}
	for rows := 1; rows <= 32; rows *= 2 {
		p.learn(rows, time.Duration(100+10*rows)*time.Microsecond)
	}
	return p
}

func TestHalfOfThoseAboutAreWaitedForIfTheyComeSoon(t *testing.T) {
	for _, c := range []struct {
		name         string
		ran, waiting int // at the end of a Run
		gap          time.Duration
		here, wanted int
	}{
		{"one at a time", 1, 0, time.Microsecond, 1, 1},
		{"two in turn", 1, 1, time.Microsecond, 1, 1},
		{"half are here", 8, 8, time.Microsecond, 8, 8},
		{"more than half are here", 8, 8, time.Microsecond, 12, 12},
		{"half come soon", 8, 8, time.Microsecond, 1, 8},
		{"no more than a batch", 64, 64, time.Microsecond, 1, 32},
		{"not all of them within a Run", 16, 16, 26 * time.Microsecond, 2, 12},
		{"none within a Run", 8, 8, time.Millisecond, 2, 2},
		{"nothing is known of when they come", 8, 8, 0, 2, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			about := company{gap: c.gap}
			about.ran(c.ran, c.waiting)
			if wanted, patience := about.wanted(c.here, known(), 32); wanted != c.wanted || patience > 420*time.Microsecond {
				t.Errorf("%d rows are wanted, for at most %v; want %d, for at most a Run", wanted, patience, c.wanted)
			}
		})
	}
}

func TestWhoIsGoneIsForgotten(t *testing.T) {
	c := company{}
	c.came(0, 1, time.Millisecond)
	c.ran(32, 32)
	for range 100 {
		c.ran(1, 0)
	}
	if c.about != 1 {
		t.Errorf("after a hundred Runs of one row %d are about", c.about)
	}
	c.ran(32, 32)
	c.came(int64(time.Second), 1, time.Millisecond)
	if c.about != 0 || c.gap > time.Millisecond {
		t.Errorf("after a pause of a second %d are about, %v apart", c.about, c.gap)
	}
}

func TestTheGapIsTheMeanOfTheRows(t *testing.T) {
	c := company{}
	now := int64(0)
	for range 1000 {
		now += int64(80 * time.Microsecond)
		c.came(now, 4, time.Millisecond)
	}
	if c.gap < 15*time.Microsecond || c.gap > 25*time.Microsecond {
		t.Errorf("four rows every 80 us are %v apart", c.gap)
	}
}

func TestAFreeSlotWaitsForThoseAboutAndNoLongerThanARun(t *testing.T) {
	for _, c := range []struct {
		name   string
		run    time.Duration // how long a Run is known to take
		come   int
		inTurn bool
	}{
		{"they come", time.Hour, 4, true},
		{"not all of them come", 20 * time.Millisecond, 3, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, Limits{MaxBatch: 32, MaxQueue: 100, Slots: 1, Coalesce: true})
			b.Batcher.mu.Lock()
			b.Batcher.runs.learn(32, c.run)
			b.company = company{last: b.Batcher.clock(), gap: time.Microsecond, about: 8}
			b.Batcher.mu.Unlock()
			answers := make(chan error, c.come)
			for range c.come {
				go func() { answers <- b.Do(context.Background(), &work{}, 1, Options{}) }()
			}
			ran := 0
			for ran < c.come {
				parts := <-b.started
				if ran += len(parts); c.inTurn && len(parts) != 4 {
					t.Errorf("a Run of %d, want half of the 8 that are about", len(parts))
				}
				b.finish <- nil
			}
			for range c.come {
				if err := <-answers; err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestOneAtATimeWaitsForNobody(t *testing.T) {
	b := newBench(t, Limits{MaxBatch: 32, MaxQueue: 100, Slots: 1, Coalesce: true})
	b.Batcher.mu.Lock()
	b.Batcher.runs.learn(32, time.Hour)
	b.Batcher.mu.Unlock()
	for range 100 {
		answer := make(chan error)
		go func() { answer <- b.Do(context.Background(), &work{}, 1, Options{}) }()
		<-b.started // the Run that would be waited for takes an hour
		b.finish <- nil
		if err := <-answer; err != nil {
			t.Fatal(err)
		}
	}
}
