package oip

import (
	"context"
	"errors"
	"strconv"

	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/repository"
	"sluicegate/go_infer/internal/status"
)

// find is the one place that asks the repository for a model. The caller releases the lease.
func (h *Handler) find(ctx context.Context, t *target) (*repository.Lease, error) {
	lease, err := h.Repository.Acquire(ctx, t.model, t.wanted)
	if err != nil {
		return nil, h.unknown(t, err)
	}
	return lease, nil
}

// again finds the model that a request was read for, after that took a while; or, if that version is not served any more, the one
// that answers now.
func (h *Handler) again(ctx context.Context, t *target, m *model.Model) (*repository.Lease, error) {
	if lease, err := h.Repository.Acquire(ctx, m.Name, repository.Wanted{Version: m.Version, Exact: true}); err == nil {
		return lease, nil
	}
	return h.find(ctx, t)
}

// unknown words a model that cannot answer as Triton does: its clients look at the text.
func (h *Handler) unknown(t *target, err error) error {
	var known *status.Error
	if !errors.As(err, &known) || known.Code != status.NotFound && known.Code != status.Unavailable {
		return err
	}
	text := "Request for unknown model: '" + t.model + "'"
	if t.wanted.Exact {
		text += " version " + strconv.FormatInt(t.wanted.Version, 10)
	}
	switch {
	case known.Code == status.Unavailable && t.wanted.Exact:
		text += " is not at ready state"
	case known.Code == status.Unavailable, !t.wanted.Exact && len(h.Repository.Versions(t.model)) > 0:
		text += " has no available versions"
	default:
		text += " is not found"
	}
	return &status.Error{Code: known.Code, Message: text, RetryAfter: known.RetryAfter}
}

// signature is what a request runs: the one it names, the default one, or the only one.
func signature(m *model.Model, name string) (*model.Servable, error) {
	if _, known := m.Signatures[model.DefaultSignature]; name == "" && !known && len(m.Signatures) == 1 {
		for name = range m.Signatures {
		}
	}
	return m.Signature(name)
}
