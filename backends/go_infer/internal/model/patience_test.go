package model_test

import (
	"path/filepath"
	"testing"
	"time"

	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/tensor"
	"sluicegate/go_infer/internal/testmodels"
)

func TestALoadIsOverdueOnceItsPatienceIsOver(t *testing.T) {
	for _, c := range []struct {
		name     string
		patience time.Duration
		share    *batch.Share
		overdue  bool
	}{
		{"at once", time.Nanosecond, batch.NewShare(1), true},
		{"without slots in common", time.Nanosecond, nil, true},
		{"in time", time.Hour, batch.NewShare(1), false},
		{"without a bound", 0, batch.NewShare(1), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			pool, told := tensor.NewPool(), make(chan bool, 2)
			o := options(pool)
			o.Nice, o.Patience, o.Limits.Share = 19, c.patience, c.share
			o.Overdue = func(bool) { told <- true }
			m, err := model.Load("digits", 1, filepath.Join(testmodels.Directory(t), "digits/1"), o)
			if err != nil {
				t.Fatal(err)
			}
			m.Close()
			if overdue := len(told) == 1; overdue != c.overdue {
				t.Errorf("overdue: %v, want %v", overdue, c.overdue)
			}
			pool.Drain()
		})
	}
}
