package batch

import (
	"math/rand"
	"testing"
	"time"
)

const ms = time.Millisecond

func TestPaceIsAMedianOfEachSize(t *testing.T) {
	var p pace
	if p.run(1) != 0 || p.rows(100, 32, 1) != 0 {
		t.Error("something is known before the first Run")
	}
	random := rand.New(rand.NewSource(1))
	for range 2000 {
		took := 10*ms + time.Duration(random.Intn(int(2*ms)))
		if random.Intn(20) == 0 {
			took = 5 * time.Second // the machine slept
		}
		p.learn(32, took)
		p.learn(1, 3*ms)
	}
	if got := p.run(32); got < 10*ms || got > 13*ms {
		t.Errorf("Runs of 10 to 12 ms, and one in twenty of 5 s, are held to take %v", got)
	}
	for rows, want := range map[int]time.Duration{1: 3 * ms, 2: p.run(32), 17: p.run(32), 64: p.run(32)} {
		if got := p.run(rows); got != want {
			t.Errorf("a Run of %d rows is held to take %v, want %v", rows, got, want)
		}
	}
	before := p.run(32)
	runs := 0
	for ; p.run(32) < 9*before && runs < 1000; runs++ {
		p.learn(32, 10*before)
	}
	if runs > 40 {
		t.Errorf("that Runs take ten times as long is known after %d of them, want 40 at the most", runs)
	}
}

func TestPaceOfManyRowsCountsBatchesAndSlots(t *testing.T) {
	var p pace
	p.learn(32, 8*ms)
	p.learn(1, 2*ms)
	for _, c := range []struct {
		rows, limit, slots int
		want               time.Duration
	}{
		{0, 32, 1, 0}, {1, 32, 1, 2 * ms}, {32, 32, 1, 8 * ms}, {33, 32, 1, 16 * ms}, {64, 32, 2, 8 * ms}, {65, 32, 2, 16 * ms}, {10, 1, 1, 20 * ms},
	} {
		if got := p.rows(c.rows, c.limit, c.slots); got != c.want {
			t.Errorf("%d rows in batches of %d on %d slots: %v, want %v", c.rows, c.limit, c.slots, got, c.want)
		}
	}
}

// simulate runs batches, always full, whose Runs take what takes says of their padded size; it returns the bounds seen and the share
// of Runs that took longer than the target.
func simulate(a *adapter, limits *Limits, runs int, now time.Duration, takes func(rows int) time.Duration) (bounds []int, over float64) {
	allowed := limits.within(a.bound)
	slow := 0
	for range runs {
		took := takes(allowed)
		now += took
		if took > a.target {
			slow++
		}
		allowed = limits.within(a.observe(now, allowed, allowed, took))
		bounds = append(bounds, allowed)
	}
	return bounds, float64(slow) / float64(runs)
}

func TestTheBatchBecomesAsLargeAsTheTargetAllows(t *testing.T) {
	for _, c := range []struct {
		name   string
		limits Limits
		takes  func(rows int) time.Duration
		want   int
	}{
		{"all sizes are quick enough", Limits{MaxBatch: 32}, func(int) time.Duration { return ms }, 32},
		{"16 rows fit into the target", Limits{MaxBatch: 32}, func(n int) time.Duration { return time.Duration(n) * ms / 4 }, 16},
		{"4 rows do", Limits{MaxBatch: 64}, func(n int) time.Duration { return time.Duration(n) * ms }, 4},
		{"not even one does", Limits{MaxBatch: 64}, func(int) time.Duration { return time.Second }, 1},
		{"sizes of its own", Limits{MaxBatch: 48, Sizes: []int{6, 20, 48}}, func(n int) time.Duration { return time.Duration(n) * ms / 5 }, 20},
		{"less than the smallest size brings nothing", Limits{MaxBatch: 48, Sizes: []int{6, 48}}, func(int) time.Duration { return time.Second }, 6},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.limits.Coalesce = true
			a := newAdapter(5*ms, c.limits.MaxBatch)
			bounds, over := simulate(&a, &c.limits, 20000, 0, c.takes)
			counts := map[int]int{}
			for _, bound := range bounds[1000:] {
				counts[bound]++
				if bound < 1 {
					t.Fatal("a batch of no rows")
				}
			}
			if counts[c.want] < 18000 {
				t.Errorf("sizes %v, want mostly %d", counts, c.want)
			}
			if c.takes(c.want) < 5*ms && over > .01 {
				t.Errorf("%.2f %% of the Runs took longer than the target", 100*over)
			}
		})
	}
}

func TestTheBatchGrowsAgainWhenRunsAreQuickAgain(t *testing.T) {
	limits := Limits{MaxBatch: 32, Coalesce: true}
	a := newAdapter(5*ms, 32)
	simulate(&a, &limits, 100, 0, func(int) time.Duration { return time.Second })
	if a.bound != 1 {
		t.Fatalf("the bound is %d, want 1", a.bound)
	}
	bounds, _ := simulate(&a, &limits, 3000, time.Hour, func(int) time.Duration { return ms })
	if last := bounds[len(bounds)-1]; last != 32 {
		t.Errorf("after 3000 quick Runs batches have %d rows, want 32", last)
	}
}

func TestASlowRunNowAndThenMakesNoBatchSmaller(t *testing.T) {
	limits := Limits{MaxBatch: 32, Coalesce: true}
	a := newAdapter(5*ms, 32)
	n := 0
	bounds, _ := simulate(&a, &limits, 10000, 0, func(int) time.Duration {
		if n++; n%20 == 0 {
			return 50 * ms
		}
		return ms
	})
	for _, bound := range bounds {
		if bound != 32 {
			t.Fatalf("a batch of %d rows", bound)
		}
	}
}

// The share is told who asks and how long Runs take; no goroutine is needed, for wake channels have room.
func TestModelsGetTheirShareOfTheMachinesTime(t *testing.T) {
	for _, c := range []struct {
		name    string
		weights []int
		runs    []time.Duration // of each model
		want    []float64       // share of the time
	}{
		{"equal", []int{1, 1}, []time.Duration{ms, ms}, []float64{.5, .5}},
		{"by weight", []int{3, 1}, []time.Duration{ms, ms}, []float64{.75, .25}},
		{"time and not turns", []int{1, 1}, []time.Duration{10 * ms, ms}, []float64{.5, .5}},
		{"three", []int{2, 1, 1}, []time.Duration{ms, 3 * ms, 7 * ms}, []float64{.5, .25, .25}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := NewShare(1)
			var members []*Member
			var wakes []chan struct{}
			used := make([]time.Duration, len(c.weights))
			for i, weight := range c.weights {
				members = append(members, s.Join(string(rune('a'+i)), weight))
				wakes = append(wakes, make(chan struct{}, 1))
			}
			hold := s.Join("first", 1)
			if !hold.try() {
				t.Fatal("no slot is free")
			}
			var total time.Duration
			for i, m := range members { // all want a Run all the time
				s.mu.Lock()
				m.start = max(m.start, s.clock)
				m.queue = append(m.queue, wakes[i])
				s.waiting = append(s.waiting, m)
				s.mu.Unlock()
			}
			hold.release(ms)
			for range 4000 {
				for i, m := range members {
					select {
					case <-wakes[i]:
						used[i] += c.runs[i]
						total += c.runs[i]
						s.mu.Lock()
						s.waiting = append(s.waiting, m)
						m.queue = append(m.queue, wakes[i])
						s.mu.Unlock()
						m.release(c.runs[i])
					default:
					}
				}
			}
			for i := range used {
				if got := float64(used[i]) / float64(total); got < c.want[i]-.02 || got > c.want[i]+.02 {
					t.Errorf("model %d gets %.3f of the time, want %.2f", i, got, c.want[i])
				}
			}
		})
	}
}

func TestWhoDidNotAskHasSavedNothingUp(t *testing.T) {
	s := NewShare(1)
	busy, late := s.Join("busy", 1), s.Join("late", 1)
	for range 1000 {
		if !busy.try() {
			t.Fatal("no slot is free")
		}
		busy.release(ms)
	}
	if !late.try() {
		t.Fatal("no slot is free")
	}
	late.release(ms)
	if ahead := busy.start - late.start; ahead > float64(2*ms) {
		t.Errorf("who came late may run %v before the other does", time.Duration(ahead))
	}
	busy.Leave()
	late.Leave()
	if len(s.members) != 0 || s.free != 1 {
		t.Errorf("%d members and %d free slots at the end", len(s.members), s.free)
	}
}

func TestVersionsOfAModelAreOneMember(t *testing.T) {
	s := NewShare(1)
	one, two := s.Join("digits", 1), s.Join("digits", 3)
	if one != two || one.weight != 3 {
		t.Error("two members of one name, or not the last weight")
	}
	one.Leave()
	if s.Join("digits", 1) != two {
		t.Error("a member that is still used was forgotten")
	}
}

func TestTurnedAwayRowsAreForgottenWithinTwoSeconds(t *testing.T) {
	var turned turned
	turned.add(900*ms, 100)
	for at, want := range map[time.Duration]int{950 * ms: 100, 1000 * ms: 100, 1500 * ms: 50, 1900 * ms: 10} {
		if got := turned.rows(at); got < want-1 || got > want+1 {
			t.Errorf("at %v: %d rows, want %d", at, got, want)
		}
		turned = struct {
			second    int64
			now, last int
		}{0, 100, 0}
	}
	if got := turned.rows(2 * time.Second); got != 0 {
		t.Errorf("%d rows after more than a second", got)
	}
}

func TestClassesByNameAndByLevel(t *testing.T) {
	for name, want := range map[string]Class{"": Default, "default": Default, "critical": Critical, "batch": Batch} {
		if got, err := ParseClass(name); got != want || err != nil || name != "" && got.String() != name {
			t.Errorf("%q: %v, %v", name, got, err)
		}
	}
	if _, err := ParseClass("High"); err == nil || err.Error() != `"High" is not a priority; there are critical, default and batch` {
		t.Errorf("got %v", err)
	}
	for level, want := range map[uint64]Class{0: Default, 1: Critical, 2: Default, 3: Batch, 1 << 63: Batch} {
		if got := ClassOfLevel(level); got != want {
			t.Errorf("level %d: %v, want %v", level, got, want)
		}
	}
}

func TestAClaimIsBelievedIfItIsTrustedOrModest(t *testing.T) {
	for _, c := range []struct {
		claimed, granted Class
		trusted          bool
		want             Class
	}{
		{Critical, Default, false, Default}, {Critical, Default, true, Critical}, {Critical, Batch, false, Batch},
		{Batch, Default, false, Batch}, {Batch, Critical, false, Batch}, {Batch, Critical, true, Batch},
		{Default, Critical, false, Critical}, {Default, Batch, true, Batch}, {Critical, Critical, false, Critical},
	} {
		if got := Claim(c.claimed, c.granted, c.trusted); got != c.want {
			t.Errorf("%s claimed, %s granted, trusted %v: %s, want %s", c.claimed, c.granted, c.trusted, got, c.want)
		}
	}
}
