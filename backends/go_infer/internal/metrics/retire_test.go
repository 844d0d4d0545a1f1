package metrics

import (
	"fmt"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
	"weak"

	"sluicegate/go_infer/internal/batch"
)

// total is the sum of all samples of a metric of model m.
func total(t *testing.T, text, metric string) (sum float64) {
	t.Helper()
	for _, match := range regexp.MustCompile(`(?m)^`+metric+`\{model="m",.*\} (\S+)$`).FindAllStringSubmatch(text, -1) {
		value, err := strconv.ParseFloat(match[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += value
	}
	return sum
}

func TestVersionsThatComeAndGoLeaveTheirCountsAndNoSeries(t *testing.T) {
	r := New()
	const versions = 200
	size, kept := 0, make([]weak.Pointer[[1 << 16]byte], 0, versions)
	for version := range int64(versions) {
		memory := new([1 << 16]byte)
		kept = append(kept, weak.Make(memory))
		m := r.Model("m", version)
		r.Loaded(fmt.Sprintf("m/%d", version), true, time.Second)
		m.Queue(func() int { return 0 })
		m.Outcomes(func() batch.Tally { return batch.Tally{Received: 3, Answered: 2 + int64(memory[0]), Failed: 1} })
		m.Batch(0, 4)
		m.Ran(time.Millisecond)
		m.Dropped(true)
		r.Retire(m)
		if version == 2*lastLoads {
			size = len(r.Append(nil))
		}
	}
	text := string(r.Append(nil))
	if len(text) > size+200 {
		t.Errorf("%d bytes after %d versions, %d after %d", size, 2*lastLoads, len(text), versions)
	}
	for metric, each := range map[string]float64{"go_infer_batch_received_total": 3, "go_infer_batch_ended_total": 3,
		"go_infer_batch_rows_count": 1, "go_infer_batch_rows_sum": 4, "go_infer_run_duration_seconds_count": 1, "go_infer_dropped_total": 1} {
		if got := total(t, text, metric); got != each*versions {
			t.Errorf("%s: %g, want %g", metric, got, each*versions)
		}
	}
	if want := `:tensorflow:cc:saved_model:load_attempt_count{model_path="m/unloaded",status="success"} 184`; !strings.Contains(text, want) {
		t.Errorf("no %s", want)
	}
	runtime.GC()
	for version, memory := range kept {
		if memory.Value() != nil {
			t.Fatalf("version %d is still in reach", version)
		}
	}
}

func TestVersionsThatCannotBeLoadedAreBounded(t *testing.T) {
	r := New()
	for version := range int64(2 * mostLoads) {
		m := r.Model("m", version)
		r.Loaded(fmt.Sprintf("m/%d", version), false, time.Second)
		r.Retire(m)
	}
	if len(r.loads) > mostLoads+1 {
		t.Errorf("%d are counted apart", len(r.loads))
	}
	text := string(r.Append(nil))
	for _, want := range []string{fmt.Sprintf(`{model_path="m/unloaded",status="fail"} %d`, mostLoads),
		fmt.Sprintf(`{model_path="m/%d",status="fail"} 1`, 2*mostLoads-1)} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
}
