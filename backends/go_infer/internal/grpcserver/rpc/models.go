package rpc

import (
	"context"

	"sluicegate/go_infer/internal/modelconfig"
	"sluicegate/go_infer/internal/repository"
)

// Models is what the services need of the models; *repository.Repository has it. Refusals carry TensorFlow Serving's texts.
type Models interface {
	Acquire(ctx context.Context, name string, wanted repository.Wanted) (*repository.Lease, error)
	Names() []string
	Versions(name string) []repository.Version // newest first; nil if the model is unknown
	Policy(name string) modelconfig.Policy     // the version policy of a model
}

// Controller loads and unloads models on a client's wish. Without one those calls are refused.
type Controller interface {
	// Load loads a model, or loads it anew; it returns when the model answers, or why it does not.
	Load(ctx context.Context, name string) error
	// Unload takes a model away; it returns when no new request reaches it.
	Unload(ctx context.Context, name string) error
}
