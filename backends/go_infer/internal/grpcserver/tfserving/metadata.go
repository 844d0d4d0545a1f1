package tfserving

import (
	"context"

	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/pb/serving"
	"sluicegate/go_infer/internal/pb/tensorflow"
	"sluicegate/go_infer/internal/status"
)

// signatureDef is the only metadata there is.
const signatureDef = "signature_def"

// metadata answers GetModelMetadata.
func (s *Service) metadata(ctx context.Context, in *serving.GetModelMetadataRequest) (*serving.GetModelMetadataResponse, error) {
	if in.ModelSpec == nil {
		return nil, errMissingSpec
	}
	if len(in.MetadataField) == 0 {
		return nil, status.Errorf(status.InvalidArgument, "GetModelMetadataRequest must specify at least one metadata_field")
	}
	for _, field := range in.MetadataField {
		if field != signatureDef {
			return nil, status.Errorf(status.InvalidArgument, "Metadata field %s is not supported", field)
		}
	}
	lease, err := s.acquire(ctx, in.ModelSpec)
	if err != nil {
		return nil, err
	}
	defer lease.Release()
	found := lease.Model
	all := map[string]*tensorflow.SignatureDef{}
	for name, servable := range found.Signatures {
		all[name] = &tensorflow.SignatureDef{
			Inputs:     infos(servable.Inputs),
			Outputs:    infos(servable.Outputs),
			MethodName: servable.Method,
		}
	}
	packed, err := anypb.New(&serving.SignatureDefMap{SignatureDef: all})
	if err != nil {
		return nil, err
	}
	return &serving.GetModelMetadataResponse{
		ModelSpec: &serving.ModelSpec{Name: found.Name, VersionChoice: version(found)},
		Metadata:  map[string]*anypb.Any{signatureDef: packed},
	}, nil
}

func version(found *model.Model) *serving.ModelSpec_Version {
	return &serving.ModelSpec_Version{Version: wrapperspb.Int64(found.Version)}
}

// infos are the tensors of a signature as in its SavedModel.
func infos(tensors []model.TensorInfo) map[string]*tensorflow.TensorInfo {
	all := map[string]*tensorflow.TensorInfo{}
	for i := range tensors {
		info := &tensors[i]
		shape := &tensorflow.TensorShapeProto{UnknownRank: !info.Known}
		for _, dim := range info.Dims {
			shape.Dim = append(shape.Dim, &tensorflow.TensorShapeProto_Dim{Size: dim})
		}
		all[info.Alias] = &tensorflow.TensorInfo{
			Encoding:    &tensorflow.TensorInfo_Name{Name: info.Name},
			Dtype:       tensorflow.DataType(info.Type),
			TensorShape: shape,
		}
	}
	return all
}
