package session_test

import (
	"fmt"
	"path/filepath"
	"syscall"
	"testing"

	"sluicegate/go_infer/internal/session"
	"sluicegate/go_infer/internal/tensor"
	"sluicegate/go_infer/internal/testmodels"
)

// processor is the nanoseconds of processor time that this process has used: what others do on the machine is not in it.
func processor(b *testing.B) int64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return usage.Utime.Nano() + usage.Stime.Nano()
}

// What TF_SessionRun costs by itself, at every size that batches are padded to: loadtests.bench_batching takes it off what a request costs.
func BenchmarkBareRun(b *testing.B) {
	loaded, _, err := session.Load(filepath.Join(testmodels.Directory(b), "digits/2"), 1, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer loaded.Close()
	pool := tensor.NewPool()
	for _, rows := range []int{1, 2, 4, 8, 16, 32} {
		b.Run(fmt.Sprintf("rows=%d", rows), func(b *testing.B) {
			call, err := loaded.NewCall([]string{"serving_default_image:0"}, []string{"StatefulPartitionedCall:0", "StatefulPartitionedCall:1"})
			if err != nil {
				b.Fatal(err)
			}
			defer call.Close()
			input, err := pool.Get(rows * 64 * 4)
			if err != nil {
				b.Fatal(err)
			}
			defer input.Free()
			clear(input.Bytes(rows * 64 * 4))
			if err := call.SetInput(0, tensor.Float32, []int64{int64(rows), 64}, input.Pointer(), rows*64*4); err != nil {
				b.Fatal(err)
			}
			began := processor(b)
			for b.Loop() {
				if err := call.Run(); err != nil {
					b.Fatal(err)
				}
				call.Release()
			}
			b.ReportMetric(float64(processor(b)-began)/float64(b.N), "cpu-ns/op")
		})
	}
}
