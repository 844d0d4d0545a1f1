package main

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func parsed(t *testing.T, arguments ...string) (options, error) {
	t.Helper()
	return parseFlags(append([]string{"--model_base_path=x"}, arguments...), io.Discard)
}

func TestBatchingFlagsAreBoundedOnBothSides(t *testing.T) {
	for _, c := range []struct{ flag, low, below, high, above, says string }{
		{"max_batch", "1", "0", "4096", "4097", "it must be 1..4096"},
		{"batch_workers", "1", "0", "256", "257", "it must be 1..256"},
		{"max_queue", "1", "0", "16777216", "16777217", "it must be 1..16777216"},
		{"max_queue_bytes", "1024", "1023", "1099511627776", "1099511627777", "it must be 1024..1099511627776"},
		{"max_rows", "1", "0", "16777216", "16777217", "it must be 1..16777216"},
		{"max_answer", "1024", "1023", "1099511627776", "1099511627777", "it must be 1024..1099511627776"},
		{"max_bodies", "16777216", "16777215", "1099511627776", "1099511627777", "it must be 16777216..1099511627776"},
		{"batching_off", "a", "a,", "a,b:c", ":c", "is not MODEL or MODEL:SIGNATURE"},
		{"batch_check", "true", "maybe", "false", "2", "for -batch_check"},
		{"drain_timeout", "0s", "-1s", "1h", "-1ns", "cannot be negative"},
		{"drain_grace", "0s", "-1s", "1h", "-1ns", "cannot be negative"},
		{"batch_timeout", "0s", "-1ns", "10s", "10.001s", "it must be 0s..10s"},
		{"batch_latency_target", "0s", "-1ns", "10s", "10.001s", "it must be 0s..10s"},
		{"allowed_batch_sizes", "32", "0,32", "1,2,32", "8,64", "--allowed_batch_sizes"},
		{"batch_weights", "digits=1", "digits=0", "digits=1000,b=2", "digits=1001", "is not NAME=WEIGHT with a weight of 1..1000"},
	} {
		for _, good := range []string{c.low, c.high} {
			if _, err := parsed(t, "--"+c.flag+"="+good); err != nil {
				t.Errorf("--%s=%s: %v", c.flag, good, err)
			}
		}
		for _, bad := range []string{c.below, c.above} {
			if _, err := parsed(t, "--"+c.flag+"="+bad); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("--%s=%s: %v, want %s", c.flag, bad, err, c.says)
			}
		}
	}
	if _, err := parsed(t, "--allowed_batch_sizes=32", "--batch_padding=false"); err == nil {
		t.Error("sizes without padding were taken")
	}
	if _, err := parsed(t, "--allowed_batch_sizes=1,x"); err == nil || !strings.Contains(err.Error(), `"x" is not a number of rows`) {
		t.Errorf("got %v", err)
	}
}

func TestAFileOfBatchingParametersGoesBehindFlagsThatAreGiven(t *testing.T) {
	file := filepath.Join(t.TempDir(), "batching.txt")
	text := "max_batch_size { value: 64 }\nallowed_batch_sizes: [8, 64]\nbatch_timeout_micros { value: 1500 }\n" +
		"max_enqueued_batches { value: 10 }\nnum_batch_threads { value: 3 }\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := parsed(t, "--batching_parameters_file="+file)
	if err != nil {
		t.Fatal(err)
	}
	l := o.batching.limits(nil)
	if l.MaxBatch != 64 || l.MaxQueue != 640 || l.Slots != 3 || l.Delay != 1500*time.Microsecond || !slices.Equal(l.Sizes, []int{8, 64}) {
		t.Errorf("the file gives %+v", l)
	}
	o, err = parsed(t, "--batching_parameters_file="+file, "--max_queue=7", "--batch_workers=1", "--batch_timeout=0s")
	if l := o.batching.limits(nil); err != nil || l.MaxBatch != 64 || l.MaxQueue != 7 || l.Slots != 1 || l.Delay != 0 {
		t.Errorf("file and flags give %+v, %v", l, err)
	}
	if _, err = parsed(t, "--batching_parameters_file="+file, "--max_batch=32"); err == nil || err.Error() != "--allowed_batch_sizes: the last size is 64; it must be the largest batch, 32" {
		t.Errorf("got %v", err)
	}
	if _, err = parsed(t, "--batching_parameters_file="+file, "--enable_batching=false"); err == nil {
		t.Error("a file without batching was taken")
	}
	if err := os.WriteFile(file, []byte("\nmax_batch { }"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err = parsed(t, "--batching_parameters_file="+file); err == nil || !strings.HasPrefix(err.Error(), file+":2:1: ") {
		t.Errorf("got %v", err)
	}
}
