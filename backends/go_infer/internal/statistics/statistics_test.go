package statistics

import (
	"testing"
	"time"
)

func TestRequestsAndRunsAreCountedApart(t *testing.T) {
	r, begun := &Recorder{}, time.Unix(1000, 0)
	at := func(us int) time.Time { return begun.Add(time.Duration(us) * time.Microsecond) }
	// Two requests of 2 and 3 rows share a Run; a third of 5 rows is its own; a Run carries the rest of a split request.
	r.Executed(&Run{Begun: at(0), Fed: at(1), Ran: at(11), Done: at(13), Rows: 5, Requests: 2, Queued: 30 * time.Microsecond})
	r.Executed(&Run{Begun: at(20), Fed: at(22), Ran: at(30), Done: at(33), Rows: 5, Requests: 1, Queued: 5 * time.Microsecond})
	r.Executed(&Run{Begun: at(40), Fed: at(41), Ran: at(44), Done: at(45), Rows: 2})
	for _, rows := range []int{2, 3, 7} {
		r.Answered(time.Now().Add(-time.Millisecond), rows, false)
	}
	r.Answered(time.Now().Add(-time.Millisecond), 4, true)
	s := r.Snapshot()
	us := func(count int64, us int) Duration { return Duration{count, time.Duration(us) * time.Microsecond} }
	for _, c := range []struct {
		name      string
		got, want any
	}{
		{"rows of answered requests", s.Inferences, int64(12)},
		{"Runs", s.Executions, int64(3)},
		{"answered", s.Success.Count, int64(3)},
		{"failed", s.Fail.Count, int64(1)},
		{"queue", s.Queue, us(3, 35)},
		{"input: each request in a Run has all of its time", s.Input, us(3, 2*1+2)},
		{"infer", s.Infer, us(3, 2*10+8)},
		{"output", s.Output, us(3, 2*2+3)},
		{"batch sizes", len(s.Batches), 2},
		{"the smaller first", s.Batches[0].Rows, 2},
		{"Runs of 5 rows", s.Batches[1].Infer, us(2, 18)},
		{"Runs of 2 rows", s.Batches[0].Output, us(1, 1)},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v, want %v", c.name, c.got, c.want)
		}
	}
	if s.Success.Time < 3*time.Millisecond || s.Fail.Time < time.Millisecond || time.Since(s.LastInference) > time.Minute {
		t.Errorf("times: %+v", s)
	}
	if (&Recorder{}).Snapshot().LastInference != (time.Time{}) {
		t.Error("a model that was never asked has a last inference")
	}
}
