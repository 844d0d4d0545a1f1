package session_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"sluicegate/go_infer/internal/session"
	"sluicegate/go_infer/internal/tensor"
	"sluicegate/go_infer/internal/testmodels"
)

// BenchmarkBareRun is what one TF_SessionRun of the digits CNN costs by itself, at the sizes that batches have: the floor under every
// protocol. ns/row is what a request of one row cannot cost less than.
func BenchmarkBareRun(b *testing.B) {
	loaded, _, err := session.Load(filepath.Join(testmodels.Directory(b), "digits/2"), 1)
	if err != nil {
		b.Fatal(err)
	}
	defer loaded.Close()
	pool := tensor.NewPool()
	defer pool.Drain()
	for rows := 1; rows <= 32; rows *= 2 {
		b.Run(fmt.Sprint(rows), func(b *testing.B) {
			call, err := loaded.NewCall([]string{"serving_default_image"}, []string{"StatefulPartitionedCall:0", "StatefulPartitionedCall:1"})
			if err != nil {
				b.Fatal(err)
			}
			defer call.Close()
			slab, err := pool.Get(rows * 64 * 4)
			if err != nil {
				b.Fatal(err)
			}
			defer slab.Free()
			clear(slab.Bytes(rows * 64 * 4))
			if err := call.SetInput(0, tensor.Float32, []int64{int64(rows), 64}, slab.Pointer(), rows*64*4); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := call.Run(); err != nil {
					b.Fatal(err)
				}
				call.Release()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*rows), "ns/row")
		})
	}
}
