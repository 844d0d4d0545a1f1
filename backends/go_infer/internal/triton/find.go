// Package triton is what the Open Inference Protocol is over HTTP and over gRPC alike: the names of types, how a model is found, and how
// what cannot be answered is refused. Refusals have the words of Triton, at whose texts its clients look.
package triton

import (
	"context"
	"errors"
	"strconv"

	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/repository"
	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/tensor"
)

// Datatypes are the protocol's names of element types; FP16 and BYTES are in its document, BF16 is Triton's.
var Datatypes = map[tensor.DType]string{
	tensor.Bool: "BOOL", tensor.Uint8: "UINT8", tensor.Uint16: "UINT16", tensor.Uint32: "UINT32", tensor.Uint64: "UINT64",
	tensor.Int8: "INT8", tensor.Int16: "INT16", tensor.Int32: "INT32", tensor.Int64: "INT64",
	tensor.Half: "FP16", tensor.Float32: "FP32", tensor.Float64: "FP64", tensor.BFloat16: "BF16", tensor.String: "BYTES",
}

// Refuse is an InvalidArgument.
func Refuse(format string, arguments ...any) error {
	return status.Errorf(status.InvalidArgument, format, arguments...)
}

// Version reads a version that a request names.
func Version(text string) (repository.Wanted, error) {
	number, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return repository.Wanted{}, Refuse("failed to get model version from specified version string '%s', version should be an integral value > 0", text)
	}
	return repository.Wanted{Version: int64(number), Exact: true}, nil
}

// Models is where models are found; *repository.Repository has it.
type Models interface {
	Acquire(ctx context.Context, name string, wanted repository.Wanted) (*repository.Lease, error)
	Versions(name string) []repository.Version
}

// Find finds the model that answers. The caller releases the lease.
func Find(ctx context.Context, models Models, name string, wanted repository.Wanted) (*repository.Lease, error) {
	lease, err := models.Acquire(ctx, name, wanted)
	var known *status.Error
	if err == nil || !errors.As(err, &known) || known.Code != status.NotFound && known.Code != status.Unavailable {
		return lease, err
	}
	text := "Request for unknown model: '" + name + "'"
	if wanted.Exact {
		text += " version " + strconv.FormatInt(wanted.Version, 10)
	}
	switch {
	case known.Code == status.Unavailable && wanted.Exact:
		text += " is not at ready state"
	case known.Code == status.Unavailable, !wanted.Exact && len(models.Versions(name)) > 0:
		text += " has no available versions"
	default:
		text += " is not found"
	}
	return nil, &status.Error{Code: known.Code, Message: text, RetryAfter: known.RetryAfter}
}

// Signature is what a request runs: the one it names, the default one, or the only one.
func Signature(m *model.Model, name string) (*model.Servable, error) {
	if _, known := m.Signatures[model.DefaultSignature]; name == "" && !known && len(m.Signatures) == 1 {
		for name = range m.Signatures {
		}
	}
	return m.Signature(name)
}
