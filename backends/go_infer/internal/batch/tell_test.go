package batch

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

// notified makes any context a Context.
type notified struct {
	context.Context
	mu       sync.Mutex
	listener Listener
}

func notify(ctx context.Context) *notified {
	c := &notified{Context: ctx}
	context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.listener != nil {
			c.listener.Over(ctx.Err())
		}
	})
	return c
}

func (c *notified) Notify(listener Listener) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listener = nil
	if err := c.Err(); err != nil {
		return err
	}
	c.listener = listener
	return nil
}

// waiter keeps what it is told.
type waiter struct {
	told  chan error
	after func()
}

func (w *waiter) Ended(err error) func() {
	w.told <- err
	return w.after
}

// await is Do by way of Start.
func (b *Batcher[T]) await(ctx context.Context, payload T, rows int, options Options) error {
	w := &waiter{told: make(chan error, 2)}
	if err := b.Start(notify(ctx), payload, rows, options, w); err != nil {
		return err
	}
	return <-w.told
}

func TestAWaiterIsToldOnceWhateverBecomesOfItsWork(t *testing.T) {
	broken := errors.New("broken")
	urgent := make(chan error, 1)
	for _, c := range []struct {
		name   string
		happen func(b *bench, leave func()) // while the work waits behind a Run
		want   error
	}{
		{"it is run", func(b *bench, _ func()) { b.finish <- nil; <-b.started; b.finish <- nil }, nil},
		{"its Run fails", func(b *bench, _ func()) { b.finish <- nil; <-b.started; b.finish <- broken }, broken},
		{"its client leaves while it waits", func(_ *bench, leave func()) { leave() }, context.Canceled},
		{"its client leaves in its Run", func(b *bench, leave func()) { b.finish <- nil; <-b.started; leave() }, context.Canceled},
		{"its deadline passes", func(b *bench, _ func()) { b.advance(2 * time.Second); b.finish <- nil }, ErrExpired},
		{"a more urgent one takes its place", func(b *bench, _ func()) {
			go func() { urgent <- b.Do(context.Background(), &work{}, 4, Options{Class: Critical}) }()
		}, ErrOverloaded},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, Limits{MaxBatch: 4, MaxQueue: 4, Slots: 1, Coalesce: true})
			before := make(chan reply, 1)
			b.occupy(before)
			ctx, leave := context.WithCancel(context.Background())
			defer leave()
			w, mine := &waiter{told: make(chan error, 2)}, &work{}
			mine.Retain()
			if err := b.Start(notify(ctx), mine, 4, Options{Deadline: b.clock().Add(time.Second)}, w); err != nil {
				t.Fatal(err)
			}
			c.happen(b, leave)
			if err := <-w.told; !errors.Is(err, c.want) {
				t.Errorf("told %v, want %v", err, c.want)
			}
			leave()
			b.release()
			b.Close()
			<-before
			if c.want == ErrOverloaded {
				<-urgent
			}
			if len(w.told) > 0 || mine.holders.Load() != 1 {
				t.Errorf("told %d times more; %d hold the work, want the client alone", len(w.told), mine.holders.Load())
			}
			if tally := b.Tally(); tally.Ended() != tally.Received {
				t.Errorf("%+v", tally)
			}
		})
	}
}

func TestStartRefusesAtOnceAndTellsNobody(t *testing.T) {
	gone, leave := context.WithCancel(context.Background())
	leave()
	for _, c := range []struct {
		name string
		ctx  context.Context
		rows int
		want error
	}{
		{"no rows", context.Background(), 0, ErrNoRows},
		{"more than may wait", context.Background(), 5, ErrOverloaded},
		{"nobody waits any more", gone, 1, context.Canceled},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, Limits{MaxBatch: 4, MaxQueue: 4, Slots: 1, Coalesce: true})
			replies := make(chan reply, 2)
			b.occupy(replies)
			b.send(context.Background(), &work{}, 1, replies)
			w := &waiter{told: make(chan error, 1)}
			if err := b.Start(notify(c.ctx), &work{}, c.rows, Options{}, w); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			b.release()
			b.Close()
			if len(w.told) > 0 {
				t.Error("it was told, too")
			}
		})
	}
}

func TestWhatComesAfterComesWhenAllOfABatchAreTold(t *testing.T) {
	b := newBench(t, Limits{MaxBatch: 8, MaxQueue: 8, Slots: 1, Coalesce: true})
	b.occupy(make(chan reply, 1))
	var told []chan error
	after := make(chan int, 8)
	for range 8 {
		w := &waiter{told: make(chan error, 1)}
		told = append(told, w.told)
		w.after = func() {
			n := 0
			for _, each := range told {
				n += len(each)
			}
			after <- n
		}
		if err := b.Start(notify(context.Background()), &work{}, 1, Options{}, w); err != nil {
			t.Fatal(err)
		}
	}
	b.finish <- nil
	<-b.started
	b.finish <- nil
	for range 8 {
		if n := <-after; n != 8 {
			t.Errorf("when %d of 8 had been told", n)
		}
	}
}
