package oip

import (
	"context"

	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/repository"
	"sluicegate/go_infer/internal/triton"
)

// find finds the model that answers. The caller releases the lease.
func (h *Handler) find(ctx context.Context, t *target) (*repository.Lease, error) {
	return triton.Find(ctx, h.Repository, t.model, t.wanted)
}

// again finds the model that a request was read for, after that took a while; or, if that version is not served any more, the one
// that answers now.
func (h *Handler) again(ctx context.Context, t *target, m *model.Model) (*repository.Lease, error) {
	if lease, err := h.Repository.Acquire(ctx, m.Name, repository.Wanted{Version: m.Version, Exact: true}); err == nil {
		return lease, nil
	}
	return h.find(ctx, t)
}
