package oip

import (
	"context"
	"slices"

	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/classification"
	"sluicegate/go_infer/internal/grpcserver/rpc"
	"sluicegate/go_infer/internal/grpcserver/wire"
	"sluicegate/go_infer/internal/metrics"
	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/triton"
)

const inferMethod = "/" + ServiceName + "/ModelInfer"

// modelInfer answers ModelInfer.
func (s *Service) modelInfer(ctx context.Context, in *rpc.Message) (any, error) {
	answer, _, err := s.infer(ctx, in, false)
	return answer, err
}

// infer answers one ModelInferRequest, as a ModelInferResponse or inside a ModelStreamInferResponse. The request's id is told even if
// it fails.
func (s *Service) infer(ctx context.Context, in *rpc.Message, streamed bool) (*rpc.Message, string, error) {
	q := inferRequests.Get().(*inferRequest)
	defer q.recycle()
	if err := q.read(wire.Over(in.Data)); err != nil {
		return nil, string(q.id), err
	}
	answer, err := s.run(ctx, q, streamed)
	if err != nil && streamed {
		return nil, string(q.id), err
	}
	return answer, "", err
}

func (s *Service) run(ctx context.Context, q *inferRequest, streamed bool) (*rpc.Message, error) {
	lease, err := s.find(ctx, string(q.name), string(q.version))
	if err != nil {
		return nil, err
	}
	defer lease.Release()
	if q.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, q.timeout)
		defer cancel()
	}
	class := batch.Claim(q.class, rpc.Class(ctx), s.TrustPriority)
	servable, err := triton.Signature(lease.Model, q.signature)
	if err != nil {
		return nil, err
	}
	if err := servable.Overloaded(ctx, class); err != nil {
		return nil, err
	}
	request := model.NewRequest(len(servable.Inputs))
	defer request.Release()
	if err := s.inputs(q, servable, request); err != nil {
		return nil, err
	}
	if err := q.choose(servable); err != nil {
		return nil, err
	}
	request.Class = class
	if err := servable.Run(ctx, request); err != nil {
		return nil, err
	}
	for i := range q.outputs {
		out := &q.outputs[i]
		out.value = request.Out[out.at]
		if out.classes > 0 {
			best, ordered := classification.Best(servable, out.at, out.value, out.classes)
			if !ordered {
				return nil, triton.Unordered(servable, out.at)
			}
			out.value = best
		}
	}
	return q.answer(servable, streamed)
}

// inputs copies the tensors from where they were received to where TensorFlow reads them.
func (s *Service) inputs(q *inferRequest, servable *model.Servable, request *model.Request) error {
	name := servable.Model.Name
	if n := len(q.raw); n > 0 && n != len(q.inputs) {
		return triton.Refuse("raw_input_contents has %d tensors, but the request has %d inputs for model '%s'; if one is raw, all must be", n, len(q.inputs), name)
	}
	for i := range q.inputs {
		in := &q.inputs[i]
		at, err := triton.Input(servable, request, in.name, in.datatype)
		if err == nil {
			err = triton.Shape(servable, at, in.dims)
		}
		switch raw := len(q.raw) > 0; {
		case err != nil:
		case raw && in.typed && in.contents.Len() > 0:
			err = triton.Refuse("contents field must not be specified when using raw_input_contents for '%s' for model '%s'", in.name, name)
		case raw:
			size := q.raw[i].Len()
			err = triton.Raw(&q.raw[i], size, size, servable, request, at, in.dims)
		default:
			err = in.fill(servable, at, request, s.MaxTensor)
		}
		if err != nil {
			return err
		}
	}
	return triton.Complete(servable, request)
}

// choose finds the outputs that are asked for; none is all.
func (q *inferRequest) choose(servable *model.Servable) error {
	if len(q.outputs) == 0 {
		for i := range servable.Outputs {
			q.outputs = append(q.outputs, output{at: i})
		}
		return nil
	}
	for i := range q.outputs {
		out := &q.outputs[i]
		var err error
		out.at, err = triton.Output(servable, out.name, func(at int) bool {
			return slices.ContainsFunc(q.outputs[:i], func(earlier output) bool { return earlier.at == at })
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// count counts one message of a stream as a call of its own.
func (s *Service) count(ctx context.Context, do func(context.Context) error) error {
	return s.around.Run(ctx, inferMethod, metrics.ModelInfer, do)
}
