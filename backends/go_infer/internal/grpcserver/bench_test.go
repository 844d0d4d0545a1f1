package grpcserver

import (
	"context"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"sluicegate/go_infer/internal/grpcserver/rpc"
	"sluicegate/go_infer/internal/grpcserver/tensorproto"
	"sluicegate/go_infer/internal/grpcserver/wire"
	"sluicegate/go_infer/internal/model"
	pb "sluicegate/go_infer/internal/pb/inference"
	"sluicegate/go_infer/internal/pb/serving"
	"sluicegate/go_infer/internal/tensor"
)

// The messages of a digit, and of 32 pictures of 224x224x3.
var (
	small = &serving.PredictRequest{ModelSpec: spec("digits", ""), Inputs: inputs("image", raw(make([]float32, 64), 1, 64))}
	large = &serving.PredictRequest{ModelSpec: spec("digits", ""), Inputs: inputs("image", raw(make([]float32, 32*224*224*3), 32, 224*224*3))}
)

// buffers is the message as gRPC hands it over: in pieces of 16 KiB.
func buffers(b testing.TB, m proto.Message) mem.BufferSlice {
	b.Helper()
	encoded, err := proto.Marshal(m)
	if err != nil {
		b.Fatal(err)
	}
	var all mem.BufferSlice
	for len(encoded) > 0 {
		n := min(len(encoded), 16<<10)
		all = append(all, mem.SliceBuffer(encoded[:n]))
		encoded = encoded[n:]
	}
	return all
}

// BenchmarkRead compares the two ways from received buffers to a slab: read where it lies, and generated code with a copy after it.
func BenchmarkRead(b *testing.B) {
	pool := tensor.NewPool()
	defer pool.Drain()
	for name, message := range map[string]*serving.PredictRequest{"digit": small, "19MB": large} {
		data := buffers(b, message)
		b.Run("wire/"+name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(data.Len()))
			p := tensorproto.Proto{}
			for b.Loop() {
				r := wire.Over(data)
				for field, kind := r.Next(); field != 0; field, kind = r.Next() {
					if field != 2 {
						r.Skip(kind)
						continue
					}
					entry := r.Message()
					for field, kind := entry.Next(); field != 0; field, kind = entry.Next() {
						if field != 2 {
							entry.Skip(kind)
							continue
						}
						if err := p.Read(entry.Message(), 1<<30); err != nil {
							b.Fatal(err)
						}
						request := model.NewRequest(1)
						value, err := request.SetInput(0, pool, p.Type, p.Dims...)
						if err != nil || p.Fill(value.Bytes()) != nil {
							b.Fatal(err)
						}
						request.Release()
					}
				}
			}
		})
		b.Run("generated/"+name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(data.Len()))
			for b.Loop() {
				in := &serving.PredictRequest{}
				if err := (rpc.Codec{}).Unmarshal(data, in); err != nil {
					b.Fatal(err)
				}
				for _, t := range in.Inputs {
					dims := make([]int64, len(t.TensorShape.Dim))
					for i, dim := range t.TensorShape.Dim {
						dims[i] = dim.Size
					}
					request := model.NewRequest(1)
					value, err := request.SetInput(0, pool, tensor.DType(t.Dtype), dims...)
					if err != nil {
						b.Fatal(err)
					}
					copy(value.Bytes(), t.TensorContent)
					request.Release()
				}
			}
		})
	}
}

// BenchmarkCall is a digit through the whole server and TensorFlow, from 32 callers on one connection. cpu-us/op is of the process, and
// so of the client, too.
func BenchmarkCall(b *testing.B) {
	r := start(b, digits(b), usual)
	row := make([]float32, 64)
	infer := image("", row)
	for name, call := range map[string]struct {
		method  string
		in, out func() proto.Message
	}{
		"Predict":     {predict, func() proto.Message { return small }, func() proto.Message { return &serving.PredictResponse{} }},
		"ModelInfer":  {service + "ModelInfer", func() proto.Message { return infer }, func() proto.Message { return &pb.ModelInferResponse{} }},
		"GetStatus":   {status, func() proto.Message { return &serving.GetModelStatusRequest{ModelSpec: spec("digits", "")} }, func() proto.Message { return &serving.GetModelStatusResponse{} }},
		"ServerReady": {service + "ServerReady", func() proto.Message { return &pb.ServerReadyRequest{} }, func() proto.Message { return &pb.ServerReadyResponse{} }},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			conn, err := grpc.NewClient("passthrough:///"+r.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			var left atomic.Int64
			left.Store(int64(b.N))
			var callers sync.WaitGroup
			begun := spent()
			b.ResetTimer()
			for range 32 {
				callers.Add(1)
				go func() {
					defer callers.Done()
					for left.Add(-1) >= 0 {
						if err := conn.Invoke(context.Background(), call.method, call.in(), call.out()); err != nil {
							b.Error(err)
							return
						}
					}
				}()
			}
			callers.Wait()
			b.ReportMetric(float64((spent()-begun).Microseconds())/float64(b.N), "cpu-us/op")
		})
	}
}

// spent is the CPU time of this process.
func spent() time.Duration {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
