package grpcserver

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/health/grpc_health_v1"
	grpcmetadata "google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"sluicegate/go_infer/internal/listen"
	pb "sluicegate/go_infer/internal/pb/inference"
	"sluicegate/go_infer/internal/pb/serving"
	own "sluicegate/go_infer/internal/status"
)

type grpcTrailer struct{ md grpcmetadata.MD }

// reloader takes every configuration.
type reloader struct{ config *serving.ModelServerConfig }

func (r *reloader) Reload(_ context.Context, config *serving.ModelServerConfig) error {
	r.config = config
	return nil
}

// controller notes what it is asked; it knows only digits.
type controller struct{ asked []string }

func (c *controller) do(verb, name string) error {
	if name != "digits" {
		return own.Errorf(own.NotFound, "no such model")
	}
	c.asked = append(c.asked, verb, name)
	return nil
}

func (c *controller) Load(_ context.Context, name string) error   { return c.do("load", name) }
func (c *controller) Unload(_ context.Context, name string) error { return c.do("unload", name) }

func TestHealthIsThatOfTheServerAndOfEachModel(t *testing.T) {
	var ready atomic.Bool
	r := start(t, digits(t), usual, func(_ *Options, p *Parts) { p.Ready = ready.Load })
	client := grpc_health_v1.NewHealthClient(r.conn)
	check := func(service string) string {
		answer, err := client.Check(soon(t), &grpc_health_v1.HealthCheckRequest{Service: service})
		if err != nil {
			return grpcstatus.Code(err).String()
		}
		return answer.Status.String()
	}
	for service, want := range map[string]string{
		"": "NOT_SERVING", "tensorflow.serving.PredictionService": "NOT_SERVING", "inference.GRPCInferenceService": "NOT_SERVING",
		"digits": "SERVING", "digits/versions/1": "SERVING", "digits/versions/3": "NotFound", "cats": "NotFound",
	} {
		if got := check(service); got != want {
			t.Errorf("%q before the server is ready: %s, not %s", service, got, want)
		}
	}
	watch, err := client.Watch(soon(t), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"NOT_SERVING", "SERVING", "NOT_SERVING"} {
		answer, err := watch.Recv()
		if err != nil || answer.Status.String() != want {
			t.Fatalf("the watcher sees %v, %v; not %s", answer, err, want)
		}
		if want == "NOT_SERVING" {
			ready.Store(true)
		} else if got := check(""); got != "SERVING" {
			t.Errorf("a ready server is %s", got)
		} else {
			go func() { _ = r.Drain(soon(t), 0) }()
		}
	}
	if _, err := watch.Recv(); grpcstatus.Code(err) != codes.Unavailable {
		t.Errorf("the watcher of a draining server gets %v", err)
	}
}

func TestDrainFinishesWhatRunsAndEndsStreams(t *testing.T) {
	r := start(t, digits(t), usual)
	stream, err := r.conn.NewStream(soon(t), streamDesc, service+"ModelStreamInfer")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 8 {
		if err := stream.SendMsg(image(string(rune('a'+i)), make([]float32, 64))); err != nil {
			t.Fatal(err)
		}
	}
	if err := stream.RecvMsg(&pb.ModelStreamInferResponse{}); err != nil {
		t.Fatal(err)
	}
	drained := make(chan error, 1)
	go func() { drained <- r.Drain(soon(t), 10*time.Millisecond) }()
	answered := 1
	for err == nil {
		if err = stream.RecvMsg(&pb.ModelStreamInferResponse{}); err == nil {
			answered++
		}
	}
	if grpcstatus.Code(err) != codes.Unavailable || answered > 8 {
		t.Errorf("after %d answers the stream ended with %v", answered, err)
	}
	if err := <-drained; err != nil {
		t.Errorf("draining failed: %v", err)
	}
	if _, err := net.DialTimeout("tcp", r.address, time.Second); err == nil {
		t.Error("a drained server still listens")
	}
}

func TestAMessageLargerThanTheBoundIsRefusedBeforeItIsRead(t *testing.T) {
	r := start(t, digits(t), usual, func(o *Options, _ *Parts) { o.MaxMessage = 1 << 20 })
	fits, large := floats(make([]float32, 64*4000), 4000, 64), floats(make([]float32, 64*5000), 5000, 64)
	request := func(input *serving.PredictRequest, options ...grpc.CallOption) codes.Code {
		return grpcstatus.Code(r.conn.Invoke(soon(t), predict, input, &serving.PredictResponse{}, options...))
	}
	if code := request(&serving.PredictRequest{ModelSpec: spec("digits", ""), Inputs: inputs("image", fits)}); code != codes.OK {
		t.Errorf("a message within the bound: %v", code)
	}
	if code := request(&serving.PredictRequest{ModelSpec: spec("digits", ""), Inputs: inputs("image", large)}); code != codes.ResourceExhausted {
		t.Errorf("a message beyond the bound: %v", code)
	}
	if code := request(&serving.PredictRequest{ModelSpec: spec("digits", ""), Inputs: inputs("image", large)}, grpc.UseCompressor(gzip.Name)); code != codes.ResourceExhausted {
		t.Errorf("a message that is beyond the bound when it is unpacked: %v", code)
	}
	if code := request(&serving.PredictRequest{ModelSpec: spec("digits", ""), Inputs: inputs("image", fits)}, grpc.UseCompressor(gzip.Name)); code != codes.OK {
		t.Errorf("a compressed message within the bound: %v", code)
	}
}

func TestATraceBeginsWithWhatTheClientSent(t *testing.T) {
	type span struct {
		method, parent string
		err            error
	}
	spans := make(chan span, 2)
	r := start(t, digits(t), usual, func(_ *Options, p *Parts) {
		p.Around.Trace = func(ctx context.Context, method string, incoming grpcmetadata.MD) (context.Context, func(error)) {
			return ctx, func(err error) { spans <- span{method, strings.Join(incoming["traceparent"], ","), err} }
		}
	})
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	ctx := grpcmetadata.AppendToOutgoingContext(soon(t), "traceparent", parent)
	if err := r.conn.Invoke(ctx, predict, &serving.PredictRequest{ModelSpec: spec("digits", ""), Inputs: inputs("image", floats(nil, 1, 64))}, &serving.PredictResponse{}); err != nil {
		t.Fatal(err)
	}
	_ = r.conn.Invoke(ctx, predict, &serving.PredictRequest{}, &serving.PredictResponse{})
	if first, second := <-spans, <-spans; first != (span{predict, parent, nil}) || second.err == nil {
		t.Errorf("the spans are %v and %v", first, second)
	}
}

func TestReflectionDescribesEveryService(t *testing.T) {
	r := start(t, nil, usual)
	stream, err := grpc_reflection_v1.NewServerReflectionClient(r.conn).ServerReflectionInfo(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	say := func(request *grpc_reflection_v1.ServerReflectionRequest) *grpc_reflection_v1.ServerReflectionResponse {
		if err := stream.Send(request); err != nil {
			t.Fatal(err)
		}
		answer, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	var names []string
	for _, service := range say(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}}).GetListServicesResponse().GetService() {
		names = append(names, service.Name)
	}
	for _, want := range []string{"grpc.health.v1.Health", "inference.GRPCInferenceService", "tensorflow.serving.ModelService", "tensorflow.serving.PredictionService"} {
		if !slices.Contains(names, want) {
			t.Errorf("the services are %v, without %s", names, want)
		}
	}
	files := say(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_FileContainingSymbol{
		FileContainingSymbol: "tensorflow.serving.PredictionService.Predict"}}).GetFileDescriptorResponse().GetFileDescriptorProto()
	file := &descriptorpb.FileDescriptorProto{}
	if len(files) == 0 || proto.Unmarshal(files[0], file) != nil || file.GetName() != "tensorflow_serving/apis/prediction_service.proto" {
		t.Errorf("Predict is described by %d files, the first being %s", len(files), file.GetName())
	}
}

func TestASocketIsServedBesideThePort(t *testing.T) {
	r := start(t, nil, usual)
	path := filepath.Join(t.TempDir(), "grpc.sock")
	listener, err := listen.Unix(path)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- r.Serve(listener) }()
	conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Invoke(soon(t), service+"ServerLive", &pb.ServerLiveRequest{}, &pb.ServerLiveResponse{}); err != nil {
		t.Error(err)
	}
	r.Stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}
