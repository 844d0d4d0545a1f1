package batch

import (
	"context"
	"testing"
	"time"
)

func BenchmarkALoneRequest(b *testing.B) {
	batcher := New(Limits{MaxBatch: 32, MaxQueue: 1024, Slots: 1, Coalesce: true},
		func(int, []Part[*work]) error { return nil }, &bench{}, time.Now)
	defer batcher.Close()
	w := &work{}
	b.ReportAllocs()
	for b.Loop() {
		if err := batcher.Do(context.Background(), w, 1, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkManyRequestsAtOnce(b *testing.B) {
	batcher := New(Limits{MaxBatch: 32, MaxQueue: 1024, Slots: 1, Coalesce: true},
		func(int, []Part[*work]) error { return nil }, &bench{}, time.Now)
	defer batcher.Close()
	b.ReportAllocs()
	b.SetParallelism(64)
	b.RunParallel(func(pb *testing.PB) {
		w := &work{}
		for pb.Next() {
			if err := batcher.Do(context.Background(), w, 1, Options{}); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkManyRequestsWithDeadlines(b *testing.B) {
	batcher := New(Limits{MaxBatch: 32, MaxQueue: 1024, Slots: 1, Coalesce: true},
		func(int, []Part[*work]) error { return nil }, &bench{}, time.Now)
	defer batcher.Close()
	b.ReportAllocs()
	b.SetParallelism(64)
	b.RunParallel(func(pb *testing.PB) {
		w := &work{}
		for pb.Next() {
			ctx := manual{context.Background(), time.Now().Add(time.Minute)}
			if err := batcher.Do(ctx, w, 1, Options{}); err != nil {
				b.Error(err)
			}
		}
	})
}
