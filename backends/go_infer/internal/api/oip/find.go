package oip

import (
	"errors"
	"strconv"

	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/repository"
	"sluicegate/go_infer/internal/status"
)

// found is a model that answers a request, and must be let go after it.
type found struct {
	*model.Model
	release func()
}

// find is the one place that asks the repository for a model.
func (h *Handler) find(t *target) (found, error) {
	m, err := h.Repository.Get(t.model, t.version)
	if err != nil {
		return found{}, h.unknown(t, err)
	}
	return found{m, func() {}}, nil
}

// unknown words a model that cannot answer as Triton does: its clients look at the text.
func (h *Handler) unknown(t *target, err error) error {
	var known *status.Error
	if !errors.As(err, &known) || known.Code != status.NotFound && known.Code != status.Unavailable {
		return err
	}
	text := "Request for unknown model: '" + t.model + "'"
	if t.version != repository.Latest {
		text += " version " + strconv.FormatInt(t.version, 10)
	}
	switch {
	case known.Code == status.Unavailable && t.version != repository.Latest:
		text += " is not at ready state"
	case known.Code == status.Unavailable, t.version == repository.Latest && len(h.Repository.Versions(t.model)) > 0:
		text += " has no available versions"
	default:
		text += " is not found"
	}
	return &status.Error{Code: known.Code, Message: text}
}

// signature is what a request runs: the one it names, the default one, or the only one.
func signature(m *model.Model, name string) (*model.Servable, error) {
	if _, known := m.Signatures[model.DefaultSignature]; name == "" && !known && len(m.Signatures) == 1 {
		for name = range m.Signatures {
		}
	}
	return m.Signature(name)
}
