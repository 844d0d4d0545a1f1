package batch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// work is a payload that counts its holders.
type work struct {
	id      int
	holders atomic.Int32
}

func (w *work) Retain()  { w.holders.Add(1) }
func (w *work) Release() { w.holders.Add(-1) }

// bench is a batcher whose Runs are held until the test lets them go. Nothing in these tests sleeps.
type bench struct {
	*Batcher[*work]
	started  chan []Part[*work] // a Run begins
	finish   chan error         // lets one Run end
	once     sync.Once
	released chan struct{} // closed: Runs are held no more
	dropped  atomic.Int32
	expired  atomic.Int32 // of the dropped
	runs     atomic.Int32
	mu       sync.Mutex
	now      time.Time
}

func (b *bench) Batch(int, int)    { b.runs.Add(1) }
func (b *bench) Ran(time.Duration) {}
func (b *bench) Dropped(expired bool) {
	b.dropped.Add(1)
	if expired {
		b.expired.Add(1)
	}
}

func (b *bench) clock() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

func (b *bench) advance(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = b.now.Add(d)
}

func newBench(t *testing.T, limits Limits) *bench {
	t.Helper()
	b := &bench{started: make(chan []Part[*work]), finish: make(chan error), released: make(chan struct{}), now: time.Now()}
	b.Batcher = New(limits, func(_ int, parts []Part[*work]) error {
		select {
		case b.started <- slices.Clone(parts):
		case <-b.released:
			return nil
		}
		select {
		case err := <-b.finish:
			return err
		case <-b.released:
			return nil
		}
	}, b, b.clock)
	t.Cleanup(func() { // also after a test that failed in the middle of a Run
		b.release()
		b.Close()
	})
	return b
}

// release holds no Run from now on.
func (b *bench) release() { b.once.Do(func() { close(b.released) }) }

type reply struct {
	id  int
	err error
}

// send submits work and returns once it is in the queue (or was refused).
func (b *bench) send(ctx context.Context, w *work, rows int, replies chan<- reply) {
	before := b.waits()
	go func() { replies <- reply{w.id, b.Do(ctx, w, rows, Options{})} }()
	for b.waits() < before+rows {
		if b.full(rows) {
			return
		}
	}
}

func (b *bench) waits() int { return b.Waiting() }

func (b *bench) full(rows int) bool {
	b.Batcher.mu.Lock()
	defer b.Batcher.mu.Unlock()
	return b.rows() > 0 && b.rows()+rows > b.limits.MaxQueue
}

// occupy fills the only slot, so that what follows has to wait.
func (b *bench) occupy(replies chan<- reply) []Part[*work] {
	go func() { replies <- reply{-1, b.Do(context.Background(), &work{id: -1}, 1, Options{})} }()
	return <-b.started
}

func rowsOf(parts []Part[*work]) (rows []int) {
	for _, part := range parts {
		rows = append(rows, part.Rows)
	}
	return rows
}

var one = Limits{MaxBatch: 8, MaxQueue: 64, Slots: 1, Coalesce: true}

func TestALoneRequestDoesNotWaitForCompany(t *testing.T) {
	b := newBench(t, one)
	replies := make(chan reply, 1)
	parts := b.occupy(replies)
	if len(parts) != 1 || parts[0].Rows != 1 {
		t.Fatalf("first Run got %v, want the single row", rowsOf(parts))
	}
	b.finish <- nil
	if r := <-replies; r.err != nil {
		t.Fatal(r.err)
	}
}

func TestABatchFormsFromWhateverWaitsWhenASlotFrees(t *testing.T) {
	b := newBench(t, one)
	replies := make(chan reply, 16)
	b.occupy(replies)
	for i := range 10 {
		b.send(context.Background(), &work{id: i}, 1, replies)
	}
	b.finish <- nil
	first := <-b.started
	b.finish <- nil
	second := <-b.started
	b.finish <- nil
	if len(first) != 8 || len(second) != 2 {
		t.Fatalf("batches of %d and %d rows, want 8 and 2", len(first), len(second))
	}
	for i, part := range slices.Concat(first, second) {
		if part.Payload.id != i {
			t.Fatalf("position %d holds request %d: not first come, first served", i, part.Payload.id)
		}
	}
	for range 11 {
		if r := <-replies; r.err != nil {
			t.Fatal(r.err)
		}
	}
}

func TestALargeRequestIsSplitAndAnsweredOnce(t *testing.T) {
	b := newBench(t, one)
	replies := make(chan reply, 2)
	go func() { replies <- reply{1, b.Do(context.Background(), &work{id: 1}, 20, Options{})} }()
	var rows, starts []int
	for range 3 {
		parts := <-b.started
		rows = append(rows, rowsOf(parts)...)
		starts = append(starts, parts[0].Start)
		b.finish <- nil
	}
	if !slices.Equal(rows, []int{8, 8, 4}) || !slices.Equal(starts, []int{0, 8, 16}) {
		t.Fatalf("parts of %v rows from %v, want [8 8 4] from [0 8 16]", rows, starts)
	}
	if r := <-replies; r.err != nil {
		t.Fatal(r.err)
	}
}

func TestWithWholeALargeRequestIsOneRunOfItsOwn(t *testing.T) {
	b := newBench(t, Limits{MaxBatch: 8, MaxQueue: 64, Slots: 1, Coalesce: true, Whole: true})
	replies := make(chan reply, 8)
	b.occupy(replies)
	for id, rows := range []int{3, 20, 8, 2} {
		b.send(context.Background(), &work{id: id}, rows, replies)
	}
	b.finish <- nil
	for _, want := range [][]int{{3}, {20}, {8}, {2}} {
		if got := rowsOf(<-b.started); !slices.Equal(got, want) {
			t.Errorf("a Run of %v rows, want %v", got, want)
		}
		b.finish <- nil
	}
	for range 5 {
		if r := <-replies; r.err != nil {
			t.Error(r.err)
		}
	}
}

func TestOneFailedPartFailsTheRequest(t *testing.T) {
	b := newBench(t, one)
	replies := make(chan reply, 1)
	go func() { replies <- reply{1, b.Do(context.Background(), &work{}, 16, Options{})} }()
	broken := errors.New("broken")
	<-b.started
	b.finish <- broken
	if r := <-replies; !errors.Is(r.err, broken) {
		t.Fatalf("got %v, want %v", r.err, broken)
	}
	if b.runs.Load() != 1 || b.Waiting() != 0 {
		t.Fatalf("%d runs, %d rows wait: the other part was run, or waits for it", b.runs.Load(), b.Waiting())
	}
}

func TestAFullQueueRefusesAtOnce(t *testing.T) {
	b := newBench(t, Limits{MaxBatch: 8, MaxQueue: 4, Slots: 1, Coalesce: true})
	replies := make(chan reply, 8)
	b.occupy(replies)
	b.send(context.Background(), &work{}, 4, replies)
	refused := &work{}
	if err := b.Do(context.Background(), refused, 1, Options{}); !errors.Is(err, ErrOverloaded) {
		t.Fatalf("got %v, want ErrOverloaded", err)
	}
	if refused.holders.Load() != 0 {
		t.Fatal("a refused payload is still held")
	}
	b.finish <- nil
	<-b.started
	b.finish <- nil
	<-replies
	<-replies
}

func TestARequestLargerThanTheQueueIsTakenWhenNothingWaits(t *testing.T) {
	b := newBench(t, Limits{MaxBatch: 8, MaxQueue: 4, Slots: 1, Coalesce: true})
	replies := make(chan reply, 1)
	go func() { replies <- reply{0, b.Do(context.Background(), &work{}, 9, Options{})} }()
	for range 2 {
		<-b.started
		b.finish <- nil
	}
	if r := <-replies; r.err != nil {
		t.Fatal(r.err)
	}
}

func TestWorkWhoseClientLeftCostsNoRun(t *testing.T) {
	b := newBench(t, one)
	replies := make(chan reply, 4)
	b.occupy(replies)
	ctx, leave := context.WithCancel(context.Background())
	gone := &work{id: 7}
	b.send(ctx, gone, 3, replies)
	b.send(context.Background(), &work{id: 8}, 1, replies)
	leave()
	if r := <-replies; r.id != 7 || !errors.Is(r.err, context.Canceled) {
		t.Fatalf("got %v, want request 7 cancelled at once", r)
	}
	if b.Waiting() != 1 {
		t.Fatalf("%d rows wait, want 1: the row of the client that left counts no more", b.Waiting())
	}
	b.finish <- nil
	if parts := <-b.started; len(parts) != 1 || parts[0].Payload.id != 8 {
		t.Fatalf("the Run holds %d parts, want request 8 alone", len(parts))
	}
	b.finish <- nil
	<-replies
	<-replies
	if gone.holders.Load() != 0 || b.dropped.Load() != 1 || b.runs.Load() != 2 {
		t.Fatalf("holders %d, dropped %d, runs %d; want 0, 1, 2", gone.holders.Load(), b.dropped.Load(), b.runs.Load())
	}
}

// manual is a context whose deadline is known but never fires by itself: only the batcher's own look at the clock can end it.
type manual struct {
	context.Context
	at time.Time
}

func (m manual) Deadline() (time.Time, bool) { return m.at, true }

func TestExpiredWorkCostsNoRun(t *testing.T) {
	b := newBench(t, one)
	replies := make(chan reply, 4)
	b.occupy(replies)
	late := &work{id: 1}
	b.send(manual{context.Background(), b.clock().Add(time.Second)}, late, 1, replies)
	b.send(manual{context.Background(), b.clock().Add(time.Minute)}, &work{id: 2}, 1, replies)
	b.advance(2 * time.Second)
	b.finish <- nil
	if parts := <-b.started; len(parts) != 1 || parts[0].Payload.id != 2 {
		t.Fatalf("the Run holds %d parts, want request 2 alone", len(parts))
	}
	b.finish <- nil
	got := map[int]error{}
	for range 3 {
		r := <-replies
		got[r.id] = r.err
	}
	if !errors.Is(got[1], ErrExpired) || got[2] != nil || late.holders.Load() != 0 {
		t.Fatalf("got %v with %d holders", got, late.holders.Load())
	}
	if b.dropped.Load() != 1 || b.expired.Load() != 1 {
		t.Fatalf("%d dropped, %d of them expired, want 1 and 1", b.dropped.Load(), b.expired.Load())
	}
}

func TestWorkThatIsOverWhenItComesCostsNoRun(t *testing.T) {
	b := newBench(t, one)
	late, stop := context.WithTimeout(context.Background(), 0)
	defer stop()
	left, leave := context.WithCancel(context.Background())
	leave()
	w := &work{}
	if err := b.Do(late, w, 1, Options{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("late work: %v", err)
	}
	if err := b.Do(left, w, 1, Options{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("work whose client left: %v", err)
	}
	if b.runs.Load() != 0 || b.dropped.Load() != 2 || b.expired.Load() != 1 || w.holders.Load() != 0 {
		t.Fatalf("%d runs, %d dropped, %d of them expired, %d holders; want 0, 2, 1, 0",
			b.runs.Load(), b.dropped.Load(), b.expired.Load(), w.holders.Load())
	}
}

func TestAClientThatLeavesDuringARunTakesNoMemoryAway(t *testing.T) {
	b := newBench(t, one)
	ctx, leave := context.WithCancel(context.Background())
	replies := make(chan reply, 1)
	w := &work{}
	go func() { replies <- reply{0, b.Do(ctx, w, 1, Options{})} }()
	<-b.started
	leave()
	<-replies
	if w.holders.Load() != 1 {
		t.Fatalf("%d holders during the Run, want 1", w.holders.Load())
	}
	b.finish <- nil
	b.Close()
	if w.holders.Load() != 0 {
		t.Fatalf("%d holders after the Run, want 0", w.holders.Load())
	}
}

func TestAbandonedWorkIsSweptOutWhileASlotIsBusy(t *testing.T) {
	b := newBench(t, Limits{MaxBatch: 8, MaxQueue: 1 << 16, Slots: 1, Coalesce: true})
	replies := make(chan reply, 4096)
	b.occupy(replies)
	ctx, leave := context.WithCancel(context.Background())
	all := make([]*work, 500)
	for i := range all {
		all[i] = &work{id: i}
		b.send(ctx, all[i], 1, replies)
	}
	leave()
	for range all {
		<-replies
	}
	b.Batcher.mu.Lock()
	left := b.queue.size
	b.Batcher.mu.Unlock()
	if left >= 2*sweepFrom {
		t.Fatalf("%d abandoned parts are still queued, want fewer than %d", left, 2*sweepFrom)
	}
	b.finish <- nil
	<-replies
	b.Close()
	for _, w := range all {
		if w.holders.Load() != 0 {
			t.Fatal("an abandoned payload is still held")
		}
	}
}

func TestWithoutCoalescingEveryRequestIsARunOfItsOwn(t *testing.T) {
	b := newBench(t, Limits{MaxBatch: 8, MaxQueue: 64, Slots: 1})
	replies := make(chan reply, 4)
	b.occupy(replies)
	b.send(context.Background(), &work{}, 1, replies)
	b.send(context.Background(), &work{}, 20, replies)
	b.finish <- nil
	for _, want := range []int{1, 20} {
		if got := rowsOf(<-b.started); !slices.Equal(got, []int{want}) {
			t.Fatalf("a Run of %v, want [%d]", got, want)
		}
		b.finish <- nil
	}
	for range 3 {
		<-replies
	}
}

func TestCloseFinishesWhatWaitsAndRefusesTheRest(t *testing.T) {
	b := newBench(t, one)
	replies := make(chan reply, 2)
	b.occupy(replies)
	b.send(context.Background(), &work{}, 1, replies)
	closed := make(chan struct{})
	go func() { b.Close(); close(closed) }()
	b.finish <- nil
	<-b.started
	b.finish <- nil
	<-closed
	for range 2 {
		if r := <-replies; r.err != nil {
			t.Fatal(r.err)
		}
	}
	if err := b.Do(context.Background(), &work{}, 1, Options{}); !errors.Is(err, ErrClosed) {
		t.Fatalf("got %v, want ErrClosed", err)
	}
}

func TestManyClientsAreAllAnswered(t *testing.T) {
	rows := atomic.Int64{}
	events := &bench{}
	b := New(Limits{MaxBatch: 16, MaxQueue: 1 << 20, Slots: 3, Coalesce: true}, func(_ int, parts []Part[*work]) error {
		total := 0
		for _, part := range parts {
			total += part.Rows
		}
		if total > 16 {
			return fmt.Errorf("a batch of %d rows", total)
		}
		rows.Add(int64(total))
		return nil
	}, events, time.Now)
	var group sync.WaitGroup
	want := int64(0)
	for client := range 32 {
		for n := range 50 {
			want += int64(1 + (client+n)%40)
		}
		group.Add(1)
		go func() {
			defer group.Done()
			w := &work{}
			for n := range 50 {
				if err := b.Do(context.Background(), w, 1+(client+n)%40, Options{}); err != nil {
					t.Error(err)
				}
			}
			if w.holders.Load() != 0 {
				t.Error("a payload is still held")
			}
		}()
	}
	group.Wait()
	b.Close()
	if rows.Load() != want {
		t.Fatalf("%d rows were run, want %d", rows.Load(), want)
	}
}

func TestBuckets(t *testing.T) {
	for _, c := range []struct {
		limits Limits
		rows   map[int]int
		all    []int
	}{
		{Limits{MaxBatch: 32}, map[int]int{1: 1, 2: 2, 3: 4, 17: 32, 32: 32, 40: 40}, []int{1, 2, 4, 8, 16, 32}},
		{Limits{MaxBatch: 6}, map[int]int{5: 6, 3: 4}, []int{1, 2, 4, 6}},
		{Limits{MaxBatch: 1}, map[int]int{1: 1, 3: 3}, []int{1}},
		{Limits{MaxBatch: 20, Sizes: []int{3, 10, 20}}, map[int]int{1: 3, 3: 3, 4: 10, 11: 20, 20: 20, 21: 21}, []int{3, 10, 20}},
		{Limits{MaxBatch: 32, Exact: true}, map[int]int{1: 1, 3: 3, 31: 31}, []int{1, 2, 4, 8, 16, 32}},
	} {
		c.limits.Coalesce = true
		for rows, want := range c.rows {
			if got := c.limits.Bucket(rows); got != want {
				t.Errorf("%+v: %d rows are padded to %d, want %d", c.limits, rows, got, want)
			}
			alone := c.limits
			alone.Coalesce = false
			if got := alone.Bucket(rows); got != rows {
				t.Errorf("%+v: %d rows are padded to %d without batching", alone, rows, got)
			}
		}
		if got := c.limits.Buckets(); !slices.Equal(got, c.all) {
			t.Errorf("%+v: buckets %v, want %v", c.limits, got, c.all)
		}
	}
}

func TestSizesThatCannotBePaddedToAreRefused(t *testing.T) {
	for _, c := range []struct {
		sizes []int
		says  string
	}{
		{nil, ""},
		{[]int{8}, ""},
		{[]int{1, 8}, ""},
		{[]int{0, 8}, "size 0 is not a number of rows"},
		{[]int{1, 4, 4, 8}, "size 4 comes after 4; sizes must ascend"},
		{[]int{4, 1, 8}, "size 1 comes after 4; sizes must ascend"},
		{[]int{1, 4}, "the last size is 4; it must be the largest batch, 8"},
		{[]int{1, 16}, "the last size is 16; it must be the largest batch, 8"},
	} {
		got := ""
		if err := CheckSizes(c.sizes, 8); err != nil {
			got = err.Error()
		}
		if got != c.says {
			t.Errorf("%v: got %q, want %q", c.sizes, got, c.says)
		}
	}
}
