package grpcserver

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"sluicegate/go_infer/internal/grpcserver/rpc"
	"sluicegate/go_infer/internal/grpcserver/tensorproto"
	"sluicegate/go_infer/internal/grpcserver/wire"
	pb "sluicegate/go_infer/internal/pb/inference"
	"sluicegate/go_infer/internal/pb/tensorflow"
	"sluicegate/go_infer/internal/session"
	"sluicegate/go_infer/internal/tensor"
)

// forced makes a client send and receive messages as they are.
var forced = grpc.ForceCodecV2(rpc.Codec{})

// pieces lays data out in buffers of so many bytes, as a client's HTTP/2 frames would.
func pieces(data []byte, size uint8) (all mem.BufferSlice) {
	for len(data) > 0 {
		n := min(len(data), int(size)+1)
		all = append(all, mem.SliceBuffer(data[:n]))
		data = data[n:]
	}
	return all
}

// FuzzTensorProto holds the reader against the generated code: what is a TensorProto to that has the same type and shape here, and the
// same elements when it is written again; nothing else is held to anything but not to crash.
func FuzzTensorProto(f *testing.F) {
	for _, both := range typed() {
		for _, t := range both {
			encoded, _ := proto.Marshal(t)
			f.Add(encoded, uint8(3))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, size uint8) {
		pool := tensor.NewPool()
		defer pool.Drain()
		p := tensorproto.Proto{}
		if p.Read(wire.Over(pieces(data, size)), 1<<16) != nil {
			return
		}
		value := tensor.Value{Type: p.Type, Dims: p.Dims}
		var err error
		if p.Type == tensor.String {
			value.Strings, err = p.Strings()
		} else {
			slab, failed := pool.Get(value.Size())
			if failed != nil {
				t.Fatal(failed)
			}
			defer slab.Free()
			value.Slab = slab
			err = p.Fill(value.Bytes())
		}
		known := &tensorflow.TensorProto{}
		if err != nil || proto.Unmarshal(data, known) != nil {
			return
		}
		if int32(known.Dtype) != int32(p.Type) || len(known.TensorShape.GetDim()) != len(p.Dims) {
			t.Fatalf("read %v %v of %v", p.Type, p.Dims, known)
		}
		for _, content := range []bool{false, true} {
			w := tensorproto.Writer{Content: content}
			written := w.Append(nil, &value)
			again := &tensorflow.TensorProto{}
			if len(written) != w.Size(&value) || proto.Unmarshal(written, again) != nil {
				t.Fatalf("wrote %x with the size %d", written, w.Size(&value))
			}
			if floats := known.FloatVal; p.Type == tensor.Float32 && !content && len(known.TensorContent) == 0 && len(floats) == p.Elements {
				for i, v := range again.FloatVal {
					if v != floats[i] && v == v {
						t.Fatalf("element %d is %v and became %v", i, floats[i], v)
					}
				}
			}
		}
	})
}

// FuzzCalls sends any bytes as the hot messages of both protocols, to real models: nothing crashes and nothing is kept.
func FuzzCalls(f *testing.F) {
	r := start(f, digits(f), usual)
	for _, message := range []proto.Message{small, image("x", make([]float32, 64)), typedImage()} {
		encoded, _ := proto.Marshal(message)
		f.Add(encoded, uint8(255), false)
		f.Add(encoded, uint8(7), true)
	}
	f.Fuzz(func(t *testing.T, data []byte, size uint8, other bool) {
		method := predict
		if other {
			method = service + "ModelInfer"
		}
		out := &rpc.Message{}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		err := r.conn.Invoke(ctx, method, &rpc.Message{Data: pieces(data, size)}, out, forced)
		if err == nil {
			out.Data.Free()
		}
		if grpcstatus.Code(err) == codes.DeadlineExceeded {
			t.Fatalf("no answer: %v", err)
		}
		if r.pool.Live() != 0 || session.Live() != 0 {
			t.Fatalf("%d slabs and %d tensors are kept", r.pool.Live(), session.Live())
		}
	})
}

// typedImage is a digit in typed contents.
func typedImage() *pb.ModelInferRequest {
	request := image("t", make([]float32, 64))
	request.RawInputContents = nil
	request.Inputs[0].Contents = &pb.InferTensorContents{Fp32Contents: make([]float32, 64)}
	return request
}
