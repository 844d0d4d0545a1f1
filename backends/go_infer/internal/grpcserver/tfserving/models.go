package tfserving

import (
	"context"

	"sluicegate/go_infer/internal/pb/serving"
	"sluicegate/go_infer/internal/pb/tsl"
	"sluicegate/go_infer/internal/repository"
	"sluicegate/go_infer/internal/status"
)

// states are the protocol's numbers for the states of a version.
var states = map[repository.State]serving.ModelVersionStatus_State{
	repository.Start:     serving.ModelVersionStatus_START,
	repository.Loading:   serving.ModelVersionStatus_LOADING,
	repository.Available: serving.ModelVersionStatus_AVAILABLE,
	repository.Unloading: serving.ModelVersionStatus_UNLOADING,
	repository.End:       serving.ModelVersionStatus_END,
}

// status answers GetModelStatus.
func (s *Service) status(_ context.Context, in *serving.GetModelStatusRequest) (*serving.GetModelStatusResponse, error) {
	spec := in.GetModelSpec()
	if spec == nil {
		return nil, errMissingSpec
	}
	versions := s.Models.Versions(spec.Name)
	wanted := spec.GetVersion()
	if wanted != nil && s.any(spec.Name, wanted.Value) {
		wanted = nil
	}
	answer := &serving.GetModelStatusResponse{}
	for i := range versions {
		version := &versions[i]
		if wanted != nil && wanted.Value != version.Number {
			continue
		}
		answer.ModelVersionStatus = append(answer.ModelVersionStatus, &serving.ModelVersionStatus{
			Version: version.Number,
			State:   states[version.State],
			Status:  statusProto(version.Err),
		})
	}
	switch {
	case len(answer.ModelVersionStatus) > 0:
		return answer, nil
	case wanted != nil:
		return nil, status.Errorf(status.NotFound, "Could not find version %d of model %s", wanted.Value, spec.Name)
	}
	return nil, status.Errorf(status.NotFound, "Could not find any versions of model %s", spec.Name)
}

// statusProto is an error, or its absence, as a message.
func statusProto(err error) *serving.StatusProto {
	if err == nil {
		return &serving.StatusProto{}
	}
	return &serving.StatusProto{ErrorCode: tsl.Code(status.From(err).Code), ErrorMessage: err.Error()}
}

// reload answers HandleReloadConfigRequest.
func (s *Service) reload(ctx context.Context, in *serving.ReloadConfigRequest) (*serving.ReloadConfigResponse, error) {
	if s.Reloader == nil {
		return nil, repository.Forbidden("HandleReloadConfigRequest")
	}
	if in.GetConfig().GetModelConfigList() == nil {
		return nil, status.Errorf(status.InvalidArgument, "ServerModelConfig type not supported by HandleReloadConfigRequest."+
			" Only ModelConfigList is currently supported")
	}
	if err := s.Reloader.Reload(ctx, in.Config); err != nil {
		return nil, err
	}
	return &serving.ReloadConfigResponse{Status: &serving.StatusProto{}}, nil
}
