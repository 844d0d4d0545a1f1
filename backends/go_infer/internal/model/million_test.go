package model_test

import (
	"context"
	"flag"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/session"
	"sluicegate/go_infer/internal/tensor"
)

var million = flag.Bool("million", false, "run the leak check of a million requests: half a minute")

// resident is this process's memory in bytes.
func resident(t *testing.T) int {
	t.Helper()
	content, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(content))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

// A million requests of 1 to 40 rows through batcher and session, every hundredth of a client that leaves: memory is as it was after
// two hundred thousand, and nothing is held.
//
//	go test ./internal/model -run AMillion -million -v
func TestAMillionRequestsLeaveMemoryFlat(t *testing.T) {
	if !*million {
		t.Skip("pass -million")
	}
	m, pool := load(t, "digits", 2)
	s, err := m.Signature("")
	if err != nil {
		t.Fatal(err)
	}
	var sent, answered, left atomic.Int64
	until := func(total int64) int {
		var group sync.WaitGroup
		for range 64 {
			group.Add(1)
			go func() {
				defer group.Done()
				for n := sent.Add(1); n <= total; n = sent.Add(1) {
					rows := 1
					if n%50 == 0 {
						rows = int(n/50%40) + 1
					}
					if askOnce(t, s, pool, rows, n%100 == 99) {
						answered.Add(1)
					} else {
						left.Add(1)
					}
				}
			}()
		}
		group.Wait()
		sent.Store(total)
		return resident(t)
	}
	began := time.Now()
	early := until(200_000)
	late := until(1_000_000)
	t.Logf("%.1f MB after 200,000 requests, %.1f MB after 1,000,000 (%+.2f %%); %d answered, %d left, in %v", float64(early)/1e6, float64(late)/1e6,
		100*(float64(late)/float64(early)-1), answered.Load(), left.Load(), time.Since(began).Round(time.Second))
	if float64(late) > 1.02*float64(early) {
		t.Errorf("memory grew from %d to %d", early, late)
	}
	tally := m.Tally()
	if tally.Received != 1_000_000 || tally.Ended() != tally.Received || tally.Answered != answered.Load() {
		t.Errorf("counted %+v; %d were answered", tally, answered.Load())
	}
	for deadline := time.Now().Add(10 * time.Second); pool.Live() != 0 || session.Live() != 0; { // Runs of those who left may still end
		if time.Now().After(deadline) {
			t.Fatalf("%d slabs and %d tensors are held", pool.Live(), session.Live())
		}
		time.Sleep(time.Millisecond)
	}
}

// askOnce asks once; a client that leaves does so while its request waits, or runs, or is done. It says whether it was answered.
func askOnce(t *testing.T, s *model.Servable, pool *tensor.Pool, rows int, leaves bool) bool {
	request := model.NewRequest(1)
	defer request.Release()
	request.Rows, request.Class = rows, batch.Class(rows%3-1)
	value, err := request.SetInput(0, pool, tensor.Float32, int64(rows), 64)
	if err != nil {
		t.Error(err)
		return false
	}
	clear(value.Bytes())
	ctx := context.Background()
	if leaves {
		left, leave := context.WithTimeout(ctx, 200*time.Microsecond)
		defer leave()
		ctx = left
	}
	err = s.Run(ctx, request)
	if err != nil && !leaves {
		t.Error(err)
	}
	return err == nil
}
