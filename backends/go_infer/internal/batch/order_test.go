package batch

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// ask submits work of a class and returns once it is in the queue, or was refused.
func (b *bench) ask(id, rows int, replies chan<- reply, options Options) *work {
	w := &work{id: id}
	before := b.Tally()
	go func() { replies <- reply{id, b.Do(context.Background(), w, rows, options)} }()
	for b.Tally().Received == before.Received || w.holders.Load() == 0 && b.Tally().Ended() == before.Ended() {
		runtime.Gosched()
	}
	return w
}

// order lets every Run end and returns the requests as they were run.
func (b *bench) order(runs int) (ids []int) {
	for range runs {
		b.finish <- nil
		for _, part := range <-b.started {
			ids = append(ids, part.Payload.id)
		}
	}
	b.finish <- nil
	return ids
}

func TestHigherClassesGoFirstAndEarlierDeadlinesWithinOne(t *testing.T) {
	b := newBench(t, Limits{MaxBatch: 3, MaxQueue: 64, Slots: 1, Coalesce: true})
	replies := make(chan reply, 16)
	b.occupy(replies)
	in := func(d time.Duration) time.Time { return b.clock().Add(d) }
	b.ask(9, 1, replies, Options{Class: Batch})
	b.ask(4, 1, replies, Options{})
	b.ask(5, 1, replies, Options{})
	b.ask(3, 1, replies, Options{Deadline: in(500 * ms)})
	b.ask(2, 1, replies, Options{Deadline: in(100 * ms)})
	b.ask(1, 1, replies, Options{Class: Critical})
	b.ask(6, 1, replies, Options{Deadline: in(time.Hour)}) // far away: as if it had none
	if got, want := b.order(3), []int{1, 2, 3, 4, 5, 6, 9}; !slices.Equal(got, want) {
		t.Errorf("run in the order %v, want %v", got, want)
	}
	for range 8 {
		<-replies
	}
}

func TestALowerClassIsNotLeftForEver(t *testing.T) {
	b := newBench(t, Limits{MaxBatch: 1, MaxQueue: 64, Slots: 1, Coalesce: true})
	replies := make(chan reply, 200)
	b.occupy(replies)
	b.ask(9, 1, replies, Options{Class: Batch})
	b.ask(8, 1, replies, Options{Class: Batch})
	ran := map[int]int{}
	for i := range 40 { // critical work never ends
		b.ask(1, 1, replies, Options{Class: Critical})
		if i == 20 {
			b.advance(DefaultAging)
		}
		b.finish <- nil
		ran[(<-b.started)[0].Payload.id] = i
	}
	b.finish <- nil
	for b.Waiting() > 0 {
		<-b.started
		b.finish <- nil
	}
	if ran[9] < 20 || ran[9] > 20+fairTurn || ran[8] != ran[9]+fairTurn {
		t.Errorf("the two of the lowest class were run in turns %d and %d, want the first within %d of turn 20, the other %d later",
			ran[9], ran[8], fairTurn, fairTurn)
	}
}

func TestAHigherClassDisplacesTheLastOfTheLowest(t *testing.T) {
	b := newBench(t, Limits{MaxBatch: 8, MaxQueue: 4, Slots: 1, Coalesce: true, MaxBytes: 100})
	replies := make(chan reply, 16)
	b.occupy(replies)
	b.ask(7, 1, replies, Options{Class: Batch})
	b.ask(8, 1, replies, Options{Class: Batch})
	b.ask(9, 1, replies, Options{Class: Batch})
	b.ask(2, 1, replies, Options{})
	b.ask(1, 2, replies, Options{Class: Critical})
	for range 2 {
		if r := <-replies; r.id != 9 && r.id != 8 || !errors.Is(r.err, ErrOverloaded) {
			t.Fatalf("request %d was answered with %v, want 8 and 9 to be displaced", r.id, r.err)
		}
	}
	b.ask(3, 2, replies, Options{}) // there is one lower row, and two are needed
	if r := <-replies; r.id != 3 || !errors.Is(r.err, ErrOverloaded) {
		t.Fatalf("request %d was answered with %v, want 3 to be refused", r.id, r.err)
	}
	b.ask(4, 1, replies, Options{Class: Batch}) // nothing is lower
	if r := <-replies; r.id != 4 || !errors.Is(r.err, ErrOverloaded) {
		t.Fatalf("request %d was answered with %v, want 4 to be refused", r.id, r.err)
	}
	if got, want := b.order(1), []int{1, 2, 7}; !slices.Equal(got, want) {
		t.Errorf("run in the order %v, want %v", got, want)
	}
	for range 4 {
		<-replies
	}
	tally := b.Tally()
	if tally.Refused[Displaced] != 2 || tally.Refused[Rows] != 2 || tally.Answered != 4 || tally.Received != 8 {
		t.Errorf("counted %+v", tally)
	}
}

func TestAFullQueueIsToldBeforeTheBodyIsRead(t *testing.T) {
	b := newBench(t, Limits{MaxBatch: 8, MaxQueue: 4, Slots: 1, Coalesce: true})
	replies := make(chan reply, 16)
	b.occupy(replies)
	b.ask(1, 3, replies, Options{})
	if _, hopeless := b.Hopeless(Default, time.Time{}); hopeless {
		t.Error("there is room for a row")
	}
	b.ask(2, 1, replies, Options{Class: Batch})
	for class, full := range map[Class]bool{Critical: false, Default: false, Batch: true} {
		if reason, hopeless := b.Hopeless(class, time.Time{}); hopeless != full || full && reason != Rows {
			t.Errorf("%v: %v %v, want full: %v", class, hopeless, reason, full)
		}
	}
	if refusal := b.TurnAway(Rows); refusal.Reason != Rows || refusal.Waiting != 4 {
		t.Errorf("turned away with %+v", refusal)
	}
	if tally := b.Tally(); tally.Received != 4 || tally.Refused[Rows] != 1 {
		t.Errorf("counted %+v", tally)
	}
	b.order(1)
	for range 3 {
		<-replies
	}
}

func TestTheQueueIsBoundedInBytes(t *testing.T) {
	b := newBench(t, Limits{MaxBatch: 8, MaxQueue: 64, Slots: 1, Coalesce: true, MaxBytes: 100})
	replies := make(chan reply, 16)
	b.occupy(replies)
	b.ask(1, 1, replies, Options{Bytes: 60})
	b.ask(2, 1, replies, Options{Bytes: 40})
	b.ask(3, 1, replies, Options{Bytes: 1})
	var refusal *Refusal
	if r := <-replies; r.id != 3 || !errors.As(r.err, &refusal) || refusal.Reason != Bytes {
		t.Fatalf("request %d was answered with %v, want 3 to be refused", r.id, r.err)
	}
	b.order(1)
	for range 3 {
		<-replies
	}
	b.occupy(replies)
	b.ask(4, 1, replies, Options{Bytes: 1000}) // nothing else waits
	b.ask(5, 1, replies, Options{Bytes: 1})
	if r := <-replies; r.id != 5 || !errors.Is(r.err, ErrOverloaded) {
		t.Fatalf("request %d was answered with %v, want 5 to be refused", r.id, r.err)
	}
	b.order(1)
	<-replies
	<-replies
	if b.bytes != [classes]int{} || b.held != 0 {
		t.Errorf("bytes %v and %d are still counted", b.bytes, b.held)
	}
}

func TestWhatCannotBeAnsweredInTimeIsRefusedAtOnce(t *testing.T) {
	b := newBench(t, Limits{MaxBatch: 8, MaxQueue: 1000, Slots: 1, Coalesce: true})
	for range 5 {
		b.Learn(8, 10*ms)
		b.Learn(1, 10*ms)
	}
	replies := make(chan reply, 300)
	b.occupy(replies) // 10 ms from now the slot is free
	for i := range 80 {
		b.ask(i, 1, replies, Options{Class: []Class{Default, Batch}[i%2]}) // five batches of each class
	}
	in := func(d time.Duration) Options { return Options{Deadline: b.clock().Add(d)} }
	for _, c := range []struct {
		name    string
		options Options
		refused bool
	}{
		{"in no hurry", Options{}, false},
		{"before the slot is free and a Run is over", in(19 * ms), true},
		{"just in time, for it goes before those in no hurry", in(21 * ms), false},
		{"beyond Aging it is in no hurry", in(2 * time.Second), false},
	} {
		refusals := b.Tally().Refused[Late]
		b.ask(1000, 1, replies, c.options)
		if refused := b.Tally().Refused[Late] > refusals; refused != c.refused {
			t.Errorf("%s: refused: %v, want %v", c.name, refused, c.refused)
		}
	}
	low := in(30 * ms)
	low.Class = Batch // behind six batches
	b.ask(2000, 1, replies, low)
	if got := b.Tally().Refused[Late]; got != 2 {
		t.Errorf("%d refusals, want 2: what is of a lower class waits for all of the higher", got)
	}
	for left, late := range map[time.Duration]bool{19 * ms: true, 5 * time.Second: false} { // before its rows are counted
		if reason, hopeless := b.Hopeless(Default, b.clock().Add(left)); hopeless != late || reason != Late {
			t.Errorf("with %s left: %v %v, want late: %v", left, hopeless, reason, late)
		}
	}
	b.release()
	for range 86 {
		r := <-replies
		var refusal *Refusal
		if errors.As(r.err, &refusal) && (refusal.After < 90*ms || refusal.After > 140*ms) {
			t.Errorf("eleven batches of 10 ms wait; the refusal says to come again after %v", refusal.After)
		}
	}
}

// A wrong estimate must not refuse for ever what would be quick.
func TestAnIdleServerRefusesNothing(t *testing.T) {
	b := newBench(t, one)
	b.Learn(1, time.Hour)
	replies := make(chan reply, 1)
	go func() {
		replies <- reply{0, b.Do(context.Background(), &work{}, 1, Options{Deadline: b.clock().Add(time.Minute)})}
	}()
	<-b.started
	b.finish <- nil
	if r := <-replies; r.err != nil {
		t.Fatal(r.err)
	}
}

func TestRetryAfterCountsThoseThatWereTurnedAway(t *testing.T) {
	b := newBench(t, Limits{MaxBatch: 8, MaxQueue: 8, Slots: 1, Coalesce: true})
	b.Learn(8, 10*ms)
	replies := make(chan reply, 300)
	b.occupy(replies)
	b.ask(0, 8, replies, Options{})
	last := time.Duration(0)
	for i := range 100 {
		var refusal *Refusal
		if err := b.Do(context.Background(), &work{}, 8, Options{}); !errors.As(err, &refusal) {
			t.Fatal(err)
		}
		if want := time.Duration(i+1) * 10 * ms; refusal.After != want || refusal.After < last {
			t.Fatalf("refusal %d says %v, want %v: those before it come first", i, refusal.After, want)
		}
		last = refusal.After
	}
	b.advance(3 * time.Second)
	var refusal *Refusal
	if err := b.Do(context.Background(), &work{}, 8, Options{}); !errors.As(err, &refusal) || refusal.After != 10*ms {
		t.Errorf("after three quiet seconds: %v, %+v", err, refusal)
	}
	b.order(1)
	<-replies
	<-replies
}

func TestALargeRequestFillsWhatRoomThereIs(t *testing.T) {
	b := newBench(t, one)
	replies := make(chan reply, 4)
	b.occupy(replies)
	b.ask(1, 3, replies, Options{})
	b.ask(2, 12, replies, Options{})
	b.ask(3, 4, replies, Options{})
	var got [][3]int // request, first row, rows
	for range 3 {
		b.finish <- nil
		for _, part := range <-b.started {
			got = append(got, [3]int{part.Payload.id, part.Start, part.Rows})
		}
	}
	b.finish <- nil
	if want := [][3]int{{1, 0, 3}, {2, 0, 5}, {2, 5, 7}, {3, 0, 4}}; !slices.Equal(got, want) {
		t.Errorf("ran %v, want %v", got, want)
	}
	for range 4 {
		if r := <-replies; r.err != nil {
			t.Error(r.err)
		}
	}
}

func TestAFreeSlotWaitsForCompanyAsLongAsItIsTold(t *testing.T) {
	b := newBench(t, Limits{MaxBatch: 4, MaxQueue: 64, Slots: 1, Coalesce: true, Delay: time.Hour})
	replies := make(chan reply, 16)
	for i := range 4 { // the fourth makes it full
		b.ask(i, 1, replies, Options{})
	}
	if parts := <-b.started; len(parts) != 4 {
		t.Errorf("a batch of %d, want 4", len(parts))
	}
	for i := range 5 { // the fifth does not fit: when it has waited for a Run, that is company enough
		b.ask(i, 1, replies, Options{})
	}
	b.finish <- nil
	<-b.started
	b.finish <- nil
	<-b.started
	b.finish <- nil
	for range 9 {
		<-replies
	}

	real := &bench{started: make(chan []Part[*work], 1)}
	real.Batcher = New(Limits{MaxBatch: 4, MaxQueue: 64, Slots: 1, Coalesce: true, Delay: 20 * ms},
		func(_ int, parts []Part[*work]) error { return nil }, real, time.Now)
	defer real.Batcher.Close()
	began := time.Now()
	if err := real.Do(context.Background(), &work{}, 1, Options{}); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 20*ms {
		t.Errorf("a lone request was run after %v, want 20 ms", took)
	}
	began = time.Now()
	real.Learn(1, ms)
	if err := real.Do(context.Background(), &work{}, 1, Options{Deadline: began.Add(10 * time.Second)}); err != nil {
		t.Fatal(err)
	}
	if err := real.Do(context.Background(), &work{}, 4, Options{}); err != nil {
		t.Fatal(err)
	}
}

func TestRequestsWithoutRowsAreRefused(t *testing.T) {
	b := newBench(t, one)
	if err := b.Do(context.Background(), &work{}, 0, Options{}); !errors.Is(err, ErrNoRows) {
		t.Errorf("got %v", err)
	}
}

func TestOnePartThatTheRunnerFailsFailsItsRequestOnly(t *testing.T) {
	broken := errors.New("broken")
	events := &bench{}
	hold := make(chan struct{})
	b := New(one, func(_ int, parts []Part[*work]) error {
		<-hold
		for i := range parts {
			if parts[i].Payload.id == 1 {
				parts[i].Fail(broken)
			}
		}
		return nil
	}, events, time.Now)
	defer b.Close()
	var group sync.WaitGroup
	for id := range 4 {
		group.Add(1)
		go func() {
			defer group.Done()
			want := map[bool]error{true: broken}[id == 1]
			if err := b.Do(context.Background(), &work{id: id}, 1, Options{}); !errors.Is(err, want) {
				t.Errorf("request %d: %v, want %v", id, err, want)
			}
		}()
	}
	close(hold)
	group.Wait()
	if tally := b.Tally(); tally.Answered != 3 || tally.Failed != 1 {
		t.Errorf("counted %+v", tally)
	}
}

func TestModelsThatShareSlotsRunOneAtATime(t *testing.T) {
	share := NewShare(1)
	var running, most atomic.Int32
	run := func(_ int, _ []Part[*work]) error {
		most.Store(max(most.Load(), running.Add(1)))
		runtime.Gosched()
		running.Add(-1)
		return nil
	}
	var group sync.WaitGroup
	for _, name := range []string{"a", "b", "c"} {
		b := NewShared(name, 1, Limits{MaxBatch: 4, MaxQueue: 1 << 20, Slots: 2, Coalesce: true, Share: share}, run, &bench{}, time.Now)
		defer b.Close()
		for range 8 {
			group.Add(1)
			go func() {
				defer group.Done()
				for range 200 {
					if err := b.Do(context.Background(), &work{}, 1, Options{}); err != nil {
						t.Error(err)
					}
				}
			}()
		}
	}
	group.Wait()
	if most.Load() != 1 {
		t.Errorf("%d Runs at a time, want 1", most.Load())
	}
}
