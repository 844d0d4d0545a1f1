package grpcserver

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	grpcstatus "google.golang.org/grpc/status"

	"sluicegate/go_infer/internal/grpcserver/oip"
	"sluicegate/go_infer/internal/grpcserver/rpc"
	"sluicegate/go_infer/internal/grpcserver/tfserving"
	"sluicegate/go_infer/internal/repository"
)

// health answers grpc.health.v1. The services it knows: "" and each gRPC service, which serve when the server is ready; a model's
// name, which serves when any version does; and MODEL/versions/N.
//
// It keeps no state of its own but the drain: the models' states are asked when a client asks, and Watch asks again every interval.
type health struct {
	grpc_health_v1.UnimplementedHealthServer
	models   rpc.Models
	ready    func() bool
	draining atomic.Bool
	ended    chan struct{} // closed when draining begins
	once     sync.Once
}

// watchInterval is how late a watcher may learn of a change.
const watchInterval = 250 * time.Millisecond

type healthState = grpc_health_v1.HealthCheckResponse_ServingStatus

func newHealth(models rpc.Models, ready func() bool) *health {
	return &health{models: models, ready: ready, ended: make(chan struct{})}
}

func (h *health) drain() {
	h.draining.Store(true)
	h.once.Do(func() { close(h.ended) })
}

// serving says whether the server is ready for inference.
func (h *health) serving() bool { return !h.draining.Load() && h.ready() }

func (h *health) services() []string {
	return []string{"", tfserving.PredictionService, tfserving.ModelService, oip.ServiceName}
}

func (h *health) state(service string) healthState {
	for _, known := range h.services() {
		if service == known {
			return say(h.serving())
		}
	}
	name, number, one := strings.Cut(service, "/versions/")
	versions := h.models.Versions(name)
	state := grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN
	for i := range versions {
		if one && strconv.FormatInt(versions[i].Number, 10) != number {
			continue
		}
		if versions[i].State == repository.Available {
			return say(!h.draining.Load())
		}
		state = grpc_health_v1.HealthCheckResponse_NOT_SERVING
	}
	return state
}

func say(serving bool) healthState {
	if serving {
		return grpc_health_v1.HealthCheckResponse_SERVING
	}
	return grpc_health_v1.HealthCheckResponse_NOT_SERVING
}

// Check answers once.
func (h *health) Check(_ context.Context, in *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	state := h.state(in.Service)
	if state == grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN {
		return nil, grpcstatus.Errorf(codes.NotFound, "unknown service %q; known are \"\", the gRPC services, MODEL and MODEL/versions/N", in.Service)
	}
	return &grpc_health_v1.HealthCheckResponse{Status: state}, nil
}

// List answers for everything that is known.
func (h *health) List(context.Context, *grpc_health_v1.HealthListRequest) (*grpc_health_v1.HealthListResponse, error) {
	all := map[string]*grpc_health_v1.HealthCheckResponse{}
	for _, service := range append(h.services(), h.models.Names()...) {
		all[service] = &grpc_health_v1.HealthCheckResponse{Status: h.state(service)}
	}
	return &grpc_health_v1.HealthListResponse{Statuses: all}, nil
}

// Watch answers now and at every change, until the client leaves or the server has told that it drains.
func (h *health) Watch(in *grpc_health_v1.HealthCheckRequest, stream grpc_health_v1.Health_WatchServer) error {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	told := healthState(-1)
	for {
		draining := h.draining.Load()
		if state := h.state(in.Service); state != told {
			if err := stream.Send(&grpc_health_v1.HealthCheckResponse{Status: state}); err != nil {
				return err
			}
			told = state
		}
		if draining {
			return grpcstatus.Error(codes.Unavailable, "the server is draining")
		}
		select {
		case <-stream.Context().Done():
			return grpcstatus.FromContextError(stream.Context().Err()).Err()
		case <-h.ended:
		case <-tick.C:
		}
	}
}
