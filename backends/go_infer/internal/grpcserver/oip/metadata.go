package oip

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/modelconfig"
	pb "sluicegate/go_infer/internal/pb/inference"
	"sluicegate/go_infer/internal/repository"
	"sluicegate/go_infer/internal/tensor"
	"sluicegate/go_infer/internal/triton"
)

// platform is what Triton and KServe call a TensorFlow SavedModel.
const platform = "tensorflow_savedmodel"

func (s *Service) serverLive(context.Context, *pb.ServerLiveRequest) (*pb.ServerLiveResponse, error) {
	return &pb.ServerLiveResponse{Live: true}, nil
}

func (s *Service) serverReady(context.Context, *pb.ServerReadyRequest) (*pb.ServerReadyResponse, error) {
	return &pb.ServerReadyResponse{Ready: s.Ready()}, nil
}

// modelReady says no, and not an error, for a model that does not exist: as Triton does.
func (s *Service) modelReady(_ context.Context, in *pb.ModelReadyRequest) (*pb.ModelReadyResponse, error) {
	wanted, err := versioned(in.Version)
	if err != nil {
		return nil, err
	}
	for _, version := range s.Models.Versions(in.Name) {
		if version.State == repository.Available && (!wanted.Exact || version.Number == wanted.Version) {
			return &pb.ModelReadyResponse{Ready: true}, nil
		}
	}
	return &pb.ModelReadyResponse{}, nil
}

func (s *Service) serverMetadata(context.Context, *pb.ServerMetadataRequest) (*pb.ServerMetadataResponse, error) {
	return &pb.ServerMetadataResponse{Name: "go_infer", Version: s.Release, Extensions: Extensions}, nil
}

func (s *Service) modelMetadata(ctx context.Context, in *pb.ModelMetadataRequest) (*pb.ModelMetadataResponse, error) {
	lease, err := s.find(ctx, in.Name, in.Version)
	if err != nil {
		return nil, err
	}
	defer lease.Release()
	servable, err := triton.Signature(lease.Model, "")
	if err != nil {
		return nil, err
	}
	return &pb.ModelMetadataResponse{
		Name:     lease.Model.Name,
		Versions: s.available(lease.Model.Name),
		Platform: platform,
		Inputs:   describe(servable.Inputs),
		Outputs:  describe(servable.Outputs),
	}, nil
}

// available lists the versions that can be asked for, ascending.
func (s *Service) available(name string) (numbers []string) {
	for _, version := range slices.Backward(s.Models.Versions(name)) {
		if version.State == repository.Available {
			numbers = append(numbers, strconv.FormatInt(version.Number, 10))
		}
	}
	return numbers
}

func describe(infos []model.TensorInfo) (all []*pb.ModelMetadataResponse_TensorMetadata) {
	for i := range infos {
		all = append(all, &pb.ModelMetadataResponse_TensorMetadata{
			Name: infos[i].Alias, Datatype: triton.Datatypes[infos[i].Type], Shape: shape(&infos[i]),
		})
	}
	return all
}

// shape is a declared shape. One of unknown rank cannot be said in this protocol; one free dimension is the nearest.
func shape(info *model.TensorInfo) []int64 {
	if !info.Known {
		return []int64{-1}
	}
	return info.Dims
}

// configTypes are the names of types in a ModelConfig.
var configTypes = map[tensor.DType]pb.DataType{
	tensor.Bool: pb.DataType_TYPE_BOOL, tensor.Uint8: pb.DataType_TYPE_UINT8, tensor.Uint16: pb.DataType_TYPE_UINT16,
	tensor.Uint32: pb.DataType_TYPE_UINT32, tensor.Uint64: pb.DataType_TYPE_UINT64, tensor.Int8: pb.DataType_TYPE_INT8,
	tensor.Int16: pb.DataType_TYPE_INT16, tensor.Int32: pb.DataType_TYPE_INT32, tensor.Int64: pb.DataType_TYPE_INT64,
	tensor.Half: pb.DataType_TYPE_FP16, tensor.Float32: pb.DataType_TYPE_FP32, tensor.Float64: pb.DataType_TYPE_FP64,
	tensor.BFloat16: pb.DataType_TYPE_BF16, tensor.String: pb.DataType_TYPE_STRING,
}

// modelConfig tells the part of Triton's ModelConfig that has a meaning here.
func (s *Service) modelConfig(ctx context.Context, in *pb.ModelConfigRequest) (*pb.ModelConfigResponse, error) {
	lease, err := s.find(ctx, in.Name, in.Version)
	if err != nil {
		return nil, err
	}
	defer lease.Release()
	m := lease.Model
	servable, err := triton.Signature(m, "")
	if err != nil {
		return nil, err
	}
	batched := servable.Batchable() || servable.Rowwise() && !m.Limits.Coalesce
	config := &pb.ModelConfig{
		Name: m.Name, Platform: platform, Backend: "tensorflow",
		VersionPolicy: versionPolicy(s.Models.Policy(m.Name)),
		InstanceGroup: []*pb.ModelInstanceGroup{{Name: m.Name, Kind: pb.ModelInstanceGroup_KIND_CPU, Count: int32(m.Limits.Slots)}},
	}
	dims := func(info *model.TensorInfo) []int64 {
		if batched { // the dimension of a batch is left out, as in Triton's configurations
			return info.Dims[1:]
		}
		return shape(info)
	}
	for i := range servable.Inputs {
		info := &servable.Inputs[i]
		config.Input = append(config.Input, &pb.ModelInput{Name: info.Alias, DataType: configTypes[info.Type], Dims: dims(info)})
	}
	for i := range servable.Outputs {
		info := &servable.Outputs[i]
		config.Output = append(config.Output, &pb.ModelOutput{Name: info.Alias, DataType: configTypes[info.Type], Dims: dims(info)})
	}
	if batched {
		config.MaxBatchSize = int32(m.Limits.MaxBatch)
		if m.Limits.Coalesce {
			config.SchedulingChoice = &pb.ModelConfig_DynamicBatching{
				DynamicBatching: &pb.ModelDynamicBatching{PreferredBatchSize: []int32{int32(m.Limits.MaxBatch)}}}
		}
	}
	if notes := m.Notes(); len(notes) > 0 {
		config.Parameters = map[string]*pb.ModelParameter{"notes": {StringValue: strings.Join(notes, "\n")}}
	}
	return &pb.ModelConfigResponse{Config: config}, nil
}

// versionPolicy is a version policy as Triton has it.
func versionPolicy(p modelconfig.Policy) *pb.ModelVersionPolicy {
	switch {
	case p.All:
		return &pb.ModelVersionPolicy{PolicyChoice: &pb.ModelVersionPolicy_All_{All: &pb.ModelVersionPolicy_All{}}}
	case len(p.Specific) > 0:
		return &pb.ModelVersionPolicy{PolicyChoice: &pb.ModelVersionPolicy_Specific_{Specific: &pb.ModelVersionPolicy_Specific{Versions: p.Specific}}}
	}
	return &pb.ModelVersionPolicy{PolicyChoice: &pb.ModelVersionPolicy_Latest_{Latest: &pb.ModelVersionPolicy_Latest{NumVersions: uint32(max(p.Latest, 1))}}}
}
