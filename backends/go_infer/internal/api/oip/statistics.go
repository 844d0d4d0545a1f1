package oip

import (
	"context"
	"slices"
	"strconv"

	"sluicegate/go_infer/internal/api"
	"sluicegate/go_infer/internal/repository"
	"sluicegate/go_infer/internal/statistics"
)

// The answer of the statistics extension.
type (
	statsJSON struct {
		Models []modelStats `json:"model_stats"`
	}
	modelStats struct {
		Name       string         `json:"name"`
		Version    string         `json:"version"`
		Last       int64          `json:"last_inference"`
		Inferences int64          `json:"inference_count"`
		Executions int64          `json:"execution_count"`
		Requests   inferenceStats `json:"inference_stats"`
		Batches    []batchStats   `json:"batch_stats"`
	}
	inferenceStats struct {
		Success  durationStat `json:"success"`
		Fail     durationStat `json:"fail"`
		Queue    durationStat `json:"queue"`
		Input    durationStat `json:"compute_input"`
		Infer    durationStat `json:"compute_infer"`
		Output   durationStat `json:"compute_output"`
		CacheHit durationStat `json:"cache_hit"`
		Miss     durationStat `json:"cache_miss"`
	}
	batchStats struct {
		Size   int          `json:"batch_size"`
		Input  durationStat `json:"compute_input"`
		Infer  durationStat `json:"compute_infer"`
		Output durationStat `json:"compute_output"`
	}
	durationStat struct {
		Count int64 `json:"count"`
		NS    int64 `json:"ns"`
	}
)

func told(d statistics.Duration) durationStat { return durationStat{d.Count, d.Time.Nanoseconds()} }

// statistics answers for one version, for all versions of a model, or for all models.
func (h *Handler) statistics(x *api.Exchange, t *target) error {
	names := []string{t.model}
	if t.model == "" {
		names = h.Repository.Names()
	} else if err := h.known(x.Context, t); err != nil {
		return err
	}
	answer := statsJSON{Models: []modelStats{}}
	for _, name := range names {
		for _, version := range slices.Backward(h.Repository.Versions(name)) {
			if version.State != repository.Available || t.wanted.Exact && version.Number != t.wanted.Version {
				continue
			}
			if err := h.count(x.Context, &answer, target{model: name, wanted: repository.Wanted{Version: version.Number, Exact: true}}); err != nil && t.model != "" {
				return err // else it was unloaded just now
			}
		}
	}
	return print(x, answer)
}

// known refuses a model or a version that does not answer.
func (h *Handler) known(ctx context.Context, t *target) error {
	lease, err := h.find(ctx, t)
	if err == nil {
		lease.Release()
	}
	return err
}

func (h *Handler) count(ctx context.Context, answer *statsJSON, t target) error {
	lease, err := h.find(ctx, &t)
	if err != nil {
		return err
	}
	defer lease.Release()
	m := lease.Model
	s := m.Statistics.Snapshot()
	stats := modelStats{
		Name: m.Name, Version: strconv.FormatInt(m.Version, 10), Inferences: s.Inferences, Executions: s.Executions,
		Requests: inferenceStats{
			Success: told(s.Success), Fail: told(s.Fail), Queue: told(s.Queue),
			Input: told(s.Input), Infer: told(s.Infer), Output: told(s.Output),
		},
		Batches: []batchStats{},
	}
	if !s.LastInference.IsZero() {
		stats.Last = s.LastInference.UnixMilli()
	}
	for _, b := range s.Batches {
		stats.Batches = append(stats.Batches, batchStats{b.Rows, told(b.Input), told(b.Infer), told(b.Output)})
	}
	answer.Models = append(answer.Models, stats)
	return nil
}
