package main

import (
	"slices"
	"syscall"
)

// refusals are the answers of one status that are not what was asked for: when each was sent, and how long it took from then.
type refusals struct {
	sent, took []int64
}

// Refused is one status of -also, from when the requests were sent. Times in microseconds.
type Refused struct {
	Answered int     `json:"answered"`
	P50      float64 `json:"p50"`
	P90      float64 `json:"p90"`
	P99      float64 `json:"p99"`
	P999     float64 `json:"p999"`
	Max      float64 `json:"max"`

	Took []float64 `json:"took,omitempty"` // each, ascending, with -list
}

// Result is what is printed. Times in microseconds. Counted are the answers of status 200 after the warm-up.
type Result struct {
	Offered  int                `json:"offered"`
	Answered int                `json:"answered"`
	Counted  int                `json:"counted"`
	Also     map[string]Refused `json:"also"`
	Errors   map[string]int     `json:"errors"`
	Seconds  float64            `json:"seconds"`
	P50      float64            `json:"p50"`
	P90      float64            `json:"p90"`
	P99      float64            `json:"p99"`
	P999     float64            `json:"p999"`
	Max      float64            `json:"max"`
	LagP99   float64            `json:"lag_p99"`
	CPU      float64            `json:"cpu"` // seconds of this program's, user and system
}

// result leaves out what was due in the warm-up.
func (l *load) result(from int64, list bool) Result {
	var latencies, lags []int64
	for i, due := range l.dues {
		if due >= from {
			latencies, lags = append(latencies, l.latencies[i]), append(lags, l.lags[i])
		}
	}
	slices.Sort(latencies)
	slices.Sort(lags)
	r := Result{
		Offered: l.offered, Answered: len(l.latencies), Counted: len(latencies), Errors: l.errors, Seconds: float64(l.now()) / 1e9,
		P50: at(latencies, 50), P90: at(latencies, 90), P99: at(latencies, 99), P999: at(latencies, 99.9), Max: at(latencies, 100),
		LagP99: at(lags, 99), Also: map[string]Refused{}, CPU: cpu(),
	}
	for status, each := range l.also {
		var took []int64
		for i, sent := range each.sent {
			if sent >= from {
				took = append(took, each.took[i])
			}
		}
		slices.Sort(took)
		found := Refused{Answered: len(took), P50: at(took, 50), P90: at(took, 90), P99: at(took, 99), P999: at(took, 99.9), Max: at(took, 100)}
		if list {
			for _, each := range took {
				found.Took = append(found.Took, float64(each)/1e3)
			}
		}
		r.Also[status] = found
	}
	return r
}

// cpu is the processor's time that this process has used, in seconds.
func cpu() float64 {
	var used syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	return float64(used.Utime.Nano()+used.Stime.Nano()) / 1e9
}

// at is the nearest-rank percentile in microseconds; 0 of none.
func at(ordered []int64, q float64) float64 {
	if len(ordered) == 0 {
		return 0
	}
	rank := int(float64(len(ordered))*q/100+0.999999) - 1
	return float64(ordered[min(max(rank, 0), len(ordered)-1)]) / 1e3
}
