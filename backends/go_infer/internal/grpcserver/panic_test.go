package grpcserver

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	grpcstatus "google.golang.org/grpc/status"

	"sluicegate/go_infer/internal/grpcserver/rpc"
	"sluicegate/go_infer/internal/panics"
	pb "sluicegate/go_infer/internal/pb/inference"
	"sluicegate/go_infer/internal/pb/serving"
	"sluicegate/go_infer/internal/repository"
)

// brittle breaks on one name.
type brittle struct{ rpc.Models }

func (b brittle) Acquire(ctx context.Context, name string, wanted repository.Wanted) (*repository.Lease, error) {
	if name == "broken" {
		panic("on purpose")
	}
	return b.Models.Acquire(ctx, name, wanted)
}

func (b brittle) Versions(name string) []repository.Version {
	if name == "broken" {
		panic("on purpose")
	}
	return b.Models.Versions(name)
}

func TestAPanicInACallFailsThatCallAlone(t *testing.T) {
	quiet(t)
	r := start(t, digits(t), usual, func(_ *Options, p *Parts) { p.Models = brittle{p.Models} })
	before := panics.Count()
	bad := &pb.ModelInferRequest{ModelName: "broken", Id: "b"}
	stream, err := r.conn.NewStream(soon(t), streamDesc, service+"ModelStreamInfer")
	if err != nil {
		t.Fatal(err)
	}
	answers := func(request *pb.ModelInferRequest) *pb.ModelStreamInferResponse {
		answer := &pb.ModelStreamInferResponse{}
		if err := stream.SendMsg(request); err != nil {
			t.Fatal(err)
		}
		if err := stream.RecvMsg(answer); err != nil {
			t.Fatal(err)
		}
		return answer
	}
	if said := answers(bad).ErrorMessage; !strings.Contains(said, "a mistake in this server") || strings.Contains(said, "on purpose") {
		t.Errorf("the message of the stream was answered with %q", said)
	}
	if answer := answers(image("good", make([]float32, 64))); answer.ErrorMessage != "" || answer.InferResponse.Id != "good" {
		t.Errorf("the next one with %v", answer)
	}
	watch, err := grpc_health_v1.NewHealthClient(r.conn).Watch(soon(t), &grpc_health_v1.HealthCheckRequest{Service: "broken"})
	if err == nil {
		_, err = watch.Recv()
	}
	for what, err := range map[string]error{
		"ModelInfer": r.conn.Invoke(soon(t), service+"ModelInfer", bad, &pb.ModelInferResponse{}),
		"Predict":    r.conn.Invoke(soon(t), predict, &serving.PredictRequest{ModelSpec: spec("broken", "")}, &serving.PredictResponse{}),
		"Check":      r.conn.Invoke(soon(t), "/grpc.health.v1.Health/Check", &grpc_health_v1.HealthCheckRequest{Service: "broken"}, &grpc_health_v1.HealthCheckResponse{}),
		"Watch":      err,
	} {
		if grpcstatus.Code(err) != codes.Internal {
			t.Errorf("%s ended with %v", what, err)
		}
	}
	if got := panics.Count() - before; got != 5 {
		t.Errorf("%d panics are counted, want 5", got)
	}
	if n := r.parts.Around.Registry.InFlight(); n != 1 && n != 0 { // the stream is none
		t.Errorf("%d calls are still counted in", n)
	}
	_ = ask[pb.ModelInferResponse](t, r, service+"ModelInfer", image("after", make([]float32, 64)))
}

// quiet has panics on purpose not told.
func quiet(t *testing.T) {
	before := slog.Default()
	slog.SetDefault(slog.New(slog.DiscardHandler))
	t.Cleanup(func() { slog.SetDefault(before) })
}
