package rpc

import (
	"context"
	"errors"

	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/repository"
	"sluicegate/go_infer/internal/status"
)

// Wanted says which version of a model shall answer; the zero value leaves it to the server's policy.
type Wanted struct {
	Version   int64
	Versioned bool // Version was given; it may be 0
	Label     string
}

// Releaser is the hold on a model: it is not unloaded before Release, which the caller calls once.
type Releaser interface{ Release() }

// Models is what the services need of the models. Refusals carry TensorFlow Serving's texts.
type Models interface {
	Acquire(ctx context.Context, name string, wanted Wanted) (*model.Model, Releaser, error)
	Names() []string
	Versions(name string) []repository.Version // newest first; nil if the model is unknown
}

// Controller loads and unloads models on a client's wish. Without one those calls are refused.
type Controller interface {
	Load(ctx context.Context, name string) error
	Unload(ctx context.Context, name string) error
}

// Loaded serves the models of a repository.
type Loaded struct{ *repository.Repository }

type noHold struct{}

func (noHold) Release() {}

// Acquire finds the model that answers.
func (l Loaded) Acquire(_ context.Context, name string, wanted Wanted) (*model.Model, Releaser, error) {
	number := repository.Latest
	if wanted.Versioned {
		number = wanted.Version
	}
	if wanted.Label != "" {
		return nil, nil, status.Errorf(status.InvalidArgument, "Unrecognized servable version label: %s", wanted.Label)
	}
	found, err := l.Get(name, number)
	return found, noHold{}, err
}

// ErrNoControl refuses a wish to load or unload.
var ErrNoControl = errors.New("loading and unloading on request is not enabled")
