// Package oip is the Open Inference Protocol v2 over gRPC (inference.GRPCInferenceService), with Triton's extensions for
// classification, model configuration, model control, statistics and streams.
//
// Contract: messages, codes and texts are those of the protocol and of Triton, so that their clients need no change. Shared memory,
// sequences, tracing and log settings are refused as not implemented.
// Sources: kserve/open-inference-protocol specification/protocol/inference_grpc.md; triton-inference-server/common
// protobuf/grpc_service.proto and docs/protocol/extension_*.md of triton-inference-server/server.
package oip

import (
	"context"

	"google.golang.org/grpc"

	"sluicegate/go_infer/internal/grpcserver/rpc"
	"sluicegate/go_infer/internal/metrics"
	"sluicegate/go_infer/internal/repository"
	"sluicegate/go_infer/internal/triton"
)

// ServiceName is the service, as health checks and reflection call it.
const ServiceName = "inference.GRPCInferenceService"

// Extensions are what this service has beyond the protocol's core, as its metadata tells.
var Extensions = []string{"classification", "model_configuration", "model_repository", "parameters", "schedule_policy", "statistics"}

// Service answers the protocol.
type Service struct {
	Models    rpc.Models
	Ready     func() bool
	Control   rpc.Controller  // nil: models cannot be loaded and unloaded by request
	MaxTensor int             // bytes of one tensor
	Release   string          // this server's version
	Draining  <-chan struct{} // closed when streams shall end; nil: never

	// TrustPriority believes requests that they are more urgent than others. Without it they can only be less.
	TrustPriority bool

	around *rpc.Around
}

// Register adds the service to a gRPC server.
func (s *Service) Register(server grpc.ServiceRegistrar, a *rpc.Around) {
	s.around = a
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: ServiceName,
		HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{
			rpc.RawMethod(a, ServiceName, "ModelInfer", metrics.ModelInfer, s.modelInfer),
			rpc.Method(a, ServiceName, "ServerLive", metrics.Health, s.serverLive),
			rpc.Method(a, ServiceName, "ServerReady", metrics.Health, s.serverReady),
			rpc.Method(a, ServiceName, "ModelReady", metrics.Health, s.modelReady),
			rpc.Method(a, ServiceName, "ServerMetadata", metrics.Metadata, s.serverMetadata),
			rpc.Method(a, ServiceName, "ModelMetadata", metrics.Metadata, s.modelMetadata),
			rpc.Method(a, ServiceName, "ModelConfig", metrics.Metadata, s.modelConfig),
			rpc.Method(a, ServiceName, "ModelStatistics", metrics.Status, s.modelStatistics),
			rpc.Method(a, ServiceName, "RepositoryIndex", metrics.Control, s.index),
			rpc.Method(a, ServiceName, "RepositoryModelLoad", metrics.Control, s.load),
			rpc.Method(a, ServiceName, "RepositoryModelUnload", metrics.Control, s.unload),
			rpc.Stream(a, "ModelStreamInfer", s.modelStreamInfer),
		},
		Metadata: "grpc_service.proto",
	}, s)
}

// versioned reads a version as this protocol writes it: empty for any.
func versioned(version string) (repository.Wanted, error) {
	if version == "" {
		return repository.Wanted{}, nil
	}
	return triton.Version(version)
}

// find finds the model that answers. The caller releases the lease.
func (s *Service) find(ctx context.Context, name, version string) (*repository.Lease, error) {
	wanted, err := versioned(version)
	if err != nil {
		return nil, err
	}
	return triton.Find(ctx, s.Models, name, wanted)
}
