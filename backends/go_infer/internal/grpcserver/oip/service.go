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
	"errors"
	"strconv"

	"google.golang.org/grpc"

	"sluicegate/go_infer/internal/grpcserver/rpc"
	"sluicegate/go_infer/internal/metrics"
	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/repository"
	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/tensor"
)

// ServiceName is the service, as health checks and reflection call it.
const ServiceName = "inference.GRPCInferenceService"

// Extensions are what this service has beyond the protocol's core, as its metadata tells.
var Extensions = []string{"classification", "model_configuration", "model_repository", "parameters", "schedule_policy", "statistics"}

// datatypes are the protocol's names of element types; BF16 is Triton's.
var datatypes = map[tensor.DType]string{
	tensor.Bool: "BOOL", tensor.Uint8: "UINT8", tensor.Uint16: "UINT16", tensor.Uint32: "UINT32", tensor.Uint64: "UINT64",
	tensor.Int8: "INT8", tensor.Int16: "INT16", tensor.Int32: "INT32", tensor.Int64: "INT64",
	tensor.Half: "FP16", tensor.Float32: "FP32", tensor.Float64: "FP64", tensor.BFloat16: "BF16", tensor.String: "BYTES",
}

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

func refuse(format string, arguments ...any) error {
	return status.Errorf(status.InvalidArgument, format, arguments...)
}

// wanted reads a version as this protocol writes it: empty for any.
func wanted(version string) (repository.Wanted, error) {
	if version == "" {
		return repository.Wanted{}, nil
	}
	number, err := strconv.ParseInt(version, 10, 64)
	if err != nil || number < 0 {
		return repository.Wanted{}, refuse("failed to get model version from specified version string '%s', version should be an integral value > 0", version)
	}
	return repository.Wanted{Version: number, Exact: true}, nil
}

// find finds the model that answers; a refusal is worded as Triton does, for its clients look at the text.
func (s *Service) find(ctx context.Context, name, version string) (*repository.Lease, error) {
	wanted, err := wanted(version)
	if err != nil {
		return nil, err
	}
	lease, err := s.Models.Acquire(ctx, name, wanted)
	var known *status.Error
	if err == nil || !errors.As(err, &known) || known.Code != status.NotFound && known.Code != status.Unavailable {
		return lease, err
	}
	text := "Request for unknown model: '" + name + "'"
	if wanted.Exact {
		text += " version " + version
	}
	switch {
	case known.Code == status.Unavailable && wanted.Exact:
		text += " is not at ready state"
	case known.Code == status.Unavailable, !wanted.Exact && len(s.Models.Versions(name)) > 0:
		text += " has no available versions"
	default:
		text += " is not found"
	}
	return nil, &status.Error{Code: known.Code, Message: text, RetryAfter: known.RetryAfter}
}

// signature is what a request runs: the one it names, the default one, or the only one.
func signature(m *model.Model, name string) (*model.Servable, error) {
	if _, known := m.Signatures[model.DefaultSignature]; name == "" && !known && len(m.Signatures) == 1 {
		for name = range m.Signatures {
		}
	}
	return m.Signature(name)
}
