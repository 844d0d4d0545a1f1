// Package tfserving is TensorFlow Serving over gRPC: tensorflow.serving.PredictionService and ModelService.
//
// Contract: what is answered and what is refused, with which code and text, is TensorFlow Serving's, so its clients need no change.
// Where a refusal can say more (the expected shape), that follows TensorFlow Serving's text.
// Sources: tensorflow_serving/apis/*.proto; servables/tensorflow/{predict_util,classifier,regressor,multi_inference,
// get_model_metadata_impl}.cc and model_servers/{get_model_status_impl,model_service_impl}.cc.
package tfserving

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc"

	"sluicegate/go_infer/internal/grpcserver/rpc"
	"sluicegate/go_infer/internal/grpcserver/tensorproto"
	"sluicegate/go_infer/internal/metrics"
	"sluicegate/go_infer/internal/pb/serving"
	"sluicegate/go_infer/internal/repository"
	"sluicegate/go_infer/internal/status"
)

// The services' names, as health checks and reflection call them.
const (
	PredictionService = "tensorflow.serving.PredictionService"
	ModelService      = "tensorflow.serving.ModelService"
)

// Reloader takes a new model configuration; an error leaves the old one in force.
type Reloader interface {
	Reload(ctx context.Context, config *serving.ModelServerConfig) error
}

// Service answers both services.
type Service struct {
	Models    rpc.Models
	Reloader  Reloader // nil: HandleReloadConfigRequest is refused
	Writer    tensorproto.Writer
	MaxTensor int // bytes of one tensor, however few bytes of message name it

	registry *metrics.Registry
}

// Register adds the services to a gRPC server.
func (s *Service) Register(server grpc.ServiceRegistrar, a *rpc.Around) {
	s.registry = a.Registry
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: PredictionService,
		HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{
			rpc.RawMethod(a, PredictionService, "Predict", metrics.Predict, s.predict),
			rpc.RawMethod(a, PredictionService, "Classify", metrics.Classify, s.classify),
			rpc.RawMethod(a, PredictionService, "Regress", metrics.Classify, s.regress),
			rpc.RawMethod(a, PredictionService, "MultiInference", metrics.Classify, s.multiInference),
			rpc.Method(a, PredictionService, "GetModelMetadata", metrics.Metadata, s.metadata),
		},
		Metadata: "tensorflow_serving/apis/prediction_service.proto",
	}, s)
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: ModelService,
		HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{
			rpc.Method(a, ModelService, "GetModelStatus", metrics.Status, s.status),
			rpc.Method(a, ModelService, "HandleReloadConfigRequest", metrics.Other, s.reload),
		},
		Metadata: "tensorflow_serving/apis/model_service.proto",
	}, s)
}

// answered counts a request under TensorFlow Serving's names, as prediction_service_impl.cc does: Predict, Classify and Regress, answered
// or refused, and not MultiInference. A name that no model has is not counted: clients could make up any number of them.
func (s *Service) answered(api metrics.API, name []byte, begun time.Time, err error) {
	if s.registry == nil || err != nil && s.Models.Versions(string(name)) == nil {
		return
	}
	s.registry.Serving(string(name)).Answered(api, metrics.GRPC, err, time.Since(begun))
}

// acquire finds the model of a decoded ModelSpec.
func (s *Service) acquire(ctx context.Context, spec *serving.ModelSpec) (*repository.Lease, error) {
	wanted := repository.Wanted{Label: spec.GetVersionLabel()}
	if version := spec.GetVersion(); version != nil {
		wanted.Version, wanted.Exact = version.Value, true
	}
	return s.find(ctx, spec.GetName(), wanted)
}

var (
	errMissingSpec = status.Errorf(status.InvalidArgument, "Missing ModelSpec")
	errNoName      = status.Errorf(status.InvalidArgument, "ModelSpec has no name specified.")
)

func (s *Service) find(ctx context.Context, name string, wanted repository.Wanted) (*repository.Lease, error) {
	if name == "" {
		return nil, errNoName
	}
	if wanted.Exact && s.any(name, wanted.Version) {
		wanted = repository.Wanted{}
	}
	return s.Models.Acquire(ctx, name, wanted)
}

// any says whether a version that was given means none in particular: OpenVINO's clients always give one, 0 if the user named none. A
// model that has a version 0 is asked for that.
func (s *Service) any(name string, version int64) bool {
	return version == 0 && !slices.ContainsFunc(s.Models.Versions(name), func(v repository.Version) bool { return v.Number == 0 })
}
