package oip

import (
	"context"
	"slices"
	"strconv"
	"strings"

	pb "sluicegate/go_infer/internal/pb/inference"
	"sluicegate/go_infer/internal/repository"
	"sluicegate/go_infer/internal/statistics"
	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/triton"
)

// states are Triton's names; a version that was announced and not loaded yet is not available either.
var states = map[repository.State]string{
	repository.Start: "UNAVAILABLE", repository.Loading: "LOADING", repository.Available: "READY",
	repository.Unloading: "UNLOADING", repository.End: "UNAVAILABLE",
}

// index lists every version of every model, or those that are ready.
func (s *Service) index(_ context.Context, in *pb.RepositoryIndexRequest) (*pb.RepositoryIndexResponse, error) {
	answer := &pb.RepositoryIndexResponse{}
	for _, name := range s.Models.Names() {
		for _, version := range slices.Backward(s.Models.Versions(name)) {
			if in.Ready && version.State != repository.Available {
				continue
			}
			entry := &pb.RepositoryIndexResponse_ModelIndex{Name: name, Version: strconv.FormatInt(version.Number, 10), State: states[version.State]}
			switch {
			case version.Err != nil:
				entry.Reason = version.Err.Error()
			case version.State == repository.End:
				entry.Reason = "unloaded"
			}
			answer.Models = append(answer.Models, entry)
		}
	}
	return answer, nil
}

func (s *Service) load(ctx context.Context, in *pb.RepositoryModelLoadRequest) (*pb.RepositoryModelLoadResponse, error) {
	for name := range in.Parameters {
		if name == "config" || strings.HasPrefix(name, "file:") {
			return nil, triton.Refuse("the load parameter '%s' is not supported: a model's configuration is this server's", name)
		}
	}
	if s.Control == nil {
		return nil, controlError("load", in.ModelName, nil)
	}
	if err := s.Control.Load(ctx, in.ModelName); err != nil {
		return nil, controlError("load", in.ModelName, err)
	}
	return &pb.RepositoryModelLoadResponse{}, nil
}

func (s *Service) unload(ctx context.Context, in *pb.RepositoryModelUnloadRequest) (*pb.RepositoryModelUnloadResponse, error) {
	if s.Control == nil {
		return nil, controlError("unload", in.ModelName, nil)
	}
	if err := s.Control.Unload(ctx, in.ModelName); err != nil {
		return nil, controlError("unload", in.ModelName, err)
	}
	return &pb.RepositoryModelUnloadResponse{}, nil
}

// controlError says why a model was not loaded or unloaded; without an error it is because clients may not.
func controlError(verb, name string, err error) error {
	if err == nil {
		return repository.Forbidden("failed to " + verb + " '" + name + "': explicit model load / unload")
	}
	refusal := *status.From(err)
	reason := "': "
	if refusal.Code == status.NotFound {
		reason = "', no version is available: "
	}
	refusal.Message = "failed to " + verb + " '" + name + reason + refusal.Message
	return &refusal
}

// modelStatistics answers for one version, for all versions of a model, or for all models.
func (s *Service) modelStatistics(ctx context.Context, in *pb.ModelStatisticsRequest) (*pb.ModelStatisticsResponse, error) {
	names := []string{in.Name}
	if in.Name == "" {
		names = s.Models.Names()
	} else if lease, err := s.find(ctx, in.Name, in.Version); err != nil {
		return nil, err
	} else {
		lease.Release()
	}
	answer := &pb.ModelStatisticsResponse{}
	for _, name := range names {
		for _, version := range slices.Backward(s.Models.Versions(name)) {
			number := strconv.FormatInt(version.Number, 10)
			if version.State != repository.Available || in.Version != "" && number != in.Version {
				continue
			}
			lease, err := s.find(ctx, name, number)
			if err != nil {
				continue // it was unloaded just now
			}
			answer.ModelStats = append(answer.ModelStats, counted(name, number, lease.Model.Statistics.Snapshot()))
			lease.Release()
		}
	}
	return answer, nil
}

func told(d statistics.Duration) *pb.StatisticDuration {
	return &pb.StatisticDuration{Count: uint64(d.Count), Ns: uint64(d.Time.Nanoseconds())}
}

func counted(name, version string, s statistics.Snapshot) *pb.ModelStatistics {
	stats := &pb.ModelStatistics{
		Name: name, Version: version, InferenceCount: uint64(s.Inferences), ExecutionCount: uint64(s.Executions),
		InferenceStats: &pb.InferStatistics{
			Success: told(s.Success), Fail: told(s.Fail), Queue: told(s.Queue),
			ComputeInput: told(s.Input), ComputeInfer: told(s.Infer), ComputeOutput: told(s.Output),
			CacheHit: &pb.StatisticDuration{}, CacheMiss: &pb.StatisticDuration{},
		},
	}
	if !s.LastInference.IsZero() {
		stats.LastInference = uint64(s.LastInference.UnixMilli())
	}
	for _, b := range s.Batches {
		stats.BatchStats = append(stats.BatchStats, &pb.InferBatchStatistics{
			BatchSize: uint64(b.Rows), ComputeInput: told(b.Input), ComputeInfer: told(b.Infer), ComputeOutput: told(b.Output),
		})
	}
	return stats
}
