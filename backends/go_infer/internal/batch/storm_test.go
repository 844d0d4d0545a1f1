package batch

import (
	"context"
	"errors"
	"math/rand"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// outcome is what the caller of Do saw, in the words of Tally.
func outcome(err error, seen *Tally, broken error) {
	var refusal *Refusal
	switch {
	case err == nil:
		seen.Answered++
	case errors.Is(err, broken):
		seen.Failed++
	case errors.As(err, &refusal):
		seen.Refused[refusal.Reason]++
	case errors.Is(err, ErrExpired), errors.Is(err, context.DeadlineExceeded):
		seen.Expired++
	case errors.Is(err, context.Canceled):
		seen.Cancelled++
	}
}

// Requests of every class, size and patience, clients that leave, Runs that fail and parts that do, a queue that is too small, two models
// on one slot, and a batcher that closes in the middle: whatever happens, every request ends as exactly one outcome, the callers saw
// the same, and nobody holds a payload.
func TestEveryRequestEndsAsExactlyOneOutcome(t *testing.T) {
	broken := errors.New("broken")
	share := NewShare(1)
	for name, limits := range map[string]Limits{
		"batched":   {MaxBatch: 8, MaxQueue: 60, MaxBytes: 4000, Slots: 2, Coalesce: true, Share: share, Aging: 5 * ms},
		"adaptive":  {MaxBatch: 16, MaxQueue: 100, Slots: 2, Coalesce: true, Target: 300 * time.Microsecond, Delay: 100 * time.Microsecond},
		"unbatched": {MaxBatch: 8, MaxQueue: 60, MaxBytes: 4000, Slots: 3, Share: share},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var ran, runs, answered, failed atomic.Int64
			run := func(slot int, parts []Part[*work]) error {
				random := rand.New(rand.NewSource(runs.Add(1)))
				rows := 0
				for i := range parts {
					rows += parts[i].Rows
					if parts[i].Payload.holders.Load() < 1 {
						t.Error("a part is run that nobody holds")
					}
					if random.Intn(100) == 0 {
						parts[i].Fail(broken)
					}
				}
				if limits.Coalesce && rows > limits.MaxBatch {
					t.Errorf("a batch of %d rows", rows)
				}
				ran.Add(int64(rows))
				for until := time.Now().Add(time.Duration(random.Intn(400)) * time.Microsecond); time.Now().Before(until); {
				}
				if random.Intn(50) == 0 {
					return broken
				}
				return nil
			}
			events := &bench{}
			b := NewShared(name, 1, limits, run, events, time.Now)
			var group sync.WaitGroup
			var mu sync.Mutex
			var seen Tally
			var held []*work
			for client := range 32 {
				group.Add(1)
				go func() {
					defer group.Done()
					random := rand.New(rand.NewSource(int64(client)))
					mine := Tally{}
					for range 300 {
						w := &work{id: client}
						ctx, leave := context.WithCancel(context.Background())
						options := Options{Class: Class(random.Intn(3) - 1), Bytes: random.Intn(400)}
						switch random.Intn(4) {
						case 0:
							ctx, leave = context.WithTimeout(ctx, time.Duration(random.Intn(4000))*time.Microsecond)
						case 1:
							options.Deadline = time.Now().Add(time.Duration(random.Intn(4000)) * time.Microsecond)
						case 2:
							time.AfterFunc(time.Duration(random.Intn(4000))*time.Microsecond, leave)
						}
						mine.Received++
						rows := 1 + random.Intn(12)
						do := b.Do
						if client%2 > 0 {
							do = b.await
						}
						err := do(ctx, w, rows, options)
						outcome(err, &mine, broken)
						if err == nil {
							answered.Add(int64(rows))
						} else if errors.Is(err, broken) {
							failed.Add(int64(rows))
						}
						leave()
						mu.Lock()
						held = append(held, w)
						mu.Unlock()
					}
					mu.Lock()
					defer mu.Unlock()
					seen = seen.Plus(mine)
				}()
			}
			for b.Tally().Received < 8000 {
				time.Sleep(ms)
			}
			b.Close() // what comes now is refused
			group.Wait()
			tally := b.Tally()
			if tally.Ended() != tally.Received || tally.Received != 32*300 {
				t.Errorf("received %d of %d, ended %d: %+v", tally.Received, 32*300, tally.Ended(), tally)
			}
			wasted := tally.Wasted
			tally.Wasted = 0
			if tally != seen {
				t.Errorf("counted %+v\nseen    %+v", tally, seen)
			}
			for _, each := range []struct {
				what string
				n    int64
			}{{"answered", tally.Answered}, {"failed", tally.Failed}, {"expired", tally.Expired}, {"cancelled", tally.Cancelled},
				{"refused: rows", tally.Refused[Rows]}, {"refused: closing", tally.Refused[Closing]}} {
				if each.n == 0 {
					t.Errorf("none %s: the storm is too mild to prove anything", each.what)
				}
			}
			// A failed request may have been run in part only.
			if least := answered.Load() + wasted; ran.Load() < least || ran.Load() > least+failed.Load() {
				t.Errorf("%d rows were run, %d of them answered, %d wasted, at most %d failed", ran.Load(), answered.Load(), wasted, failed.Load())
			}
			if b.Waiting() != 0 || b.rows() != 0 || b.bytes != [classes]int{} || b.queue.size != 0 || b.held != 0 || b.stale != 0 {
				t.Errorf("left behind: %d rows, %v bytes, %d parts, %d stale with %d bytes", b.Waiting(), b.bytes, b.queue.size, b.stale, b.held)
			}
			for _, w := range held {
				if w.holders.Load() != 0 {
					t.Fatal("a payload is still held")
				}
			}
			t.Logf("%+v, %d rows run, %d wasted", tally, ran.Load(), wasted)
		})
	}
	t.Cleanup(func() {
		if share.free != 1 || len(share.waiting) != 0 || len(share.members) != 0 {
			t.Errorf("%d slots free, %d members wait of %d", share.free, len(share.waiting), len(share.members))
		}
	})
}
