package oip

import (
	"context"
	"strings"

	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/classification"
	"sluicegate/go_infer/internal/grpcserver/rpc"
	"sluicegate/go_infer/internal/grpcserver/wire"
	"sluicegate/go_infer/internal/metrics"
	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/tensor"
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
	servable, err := signature(lease.Model, q.signature)
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
				return nil, refuse("output '%s' is %s, which has no best classes", servable.Outputs[out.at].Alias, datatypes[out.value.Type])
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
		return refuse("raw_input_contents has %d tensors, but the request has %d inputs for model '%s'; if one is raw, all must be", n, len(q.inputs), name)
	}
	given := 0
	for i := range q.inputs {
		in := &q.inputs[i]
		at := servable.Input(string(in.name))
		if at < 0 {
			return refuse("unexpected inference input '%s' for model '%s'", in.name, name)
		}
		if present(&request.In[at]) {
			return refuse("input '%s' already exists in request", in.name)
		}
		info := &servable.Inputs[at]
		if string(in.datatype) != datatypes[info.Type] {
			return refuse("inference input '%s' data-type is '%s', but model '%s' expects '%s'", in.name, in.datatype, name, datatypes[info.Type])
		}
		if !info.Fits(in.dims) {
			return refuse("unexpected shape for input '%s' for model '%s'. Expected %s, got %s",
				in.name, name, info.Shape(), tensor.ShapeText(in.dims, true))
		}
		elements, err := in.elements(info, s.MaxTensor)
		if err != nil {
			return err
		}
		switch {
		case len(q.raw) > 0 && in.typed && in.contents.Len() > 0:
			err = refuse("contents field must not be specified when using raw_input_contents for '%s' for model '%s'", in.name, name)
		case len(q.raw) > 0:
			err = in.fill(rawContents{q.raw[i]}, servable, at, elements, request)
		default:
			err = in.fill(typedContents{in.contents}, servable, at, elements, request)
		}
		if err != nil {
			return err
		}
		given++
	}
	if given != len(servable.Inputs) {
		return missing(servable, request, given)
	}
	return request.CountRows(servable.Signature)
}

func present(v *tensor.Value) bool { return v.Slab != nil || v.Strings != nil }

// missing names the inputs that were not given, in Triton's words.
func missing(servable *model.Servable, request *model.Request, given int) error {
	var got, missing []string
	for i := range servable.Inputs {
		name := "'" + servable.Inputs[i].Alias + "'"
		if present(&request.In[i]) {
			got = append(got, name)
		} else {
			missing = append(missing, name)
		}
	}
	return refuse("expected %d inputs but got %d inputs for model '%s'. Got inputs [%s], but missing required inputs [%s]. "+
		"Please provide all required inputs.", len(servable.Inputs), given, servable.Model.Name, strings.Join(got, ","), strings.Join(missing, ","))
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
		if out.at = servable.Output(string(out.name)); out.at < 0 {
			return refuse("unexpected inference output '%s' for model '%s'", out.name, servable.Model.Name)
		}
		for _, other := range q.outputs[:i] {
			if other.at == out.at {
				return refuse("output '%s' is requested twice", out.name)
			}
		}
	}
	return nil
}

// count counts one message of a stream as a call of its own.
func (s *Service) count(ctx context.Context, do func(context.Context) error) error {
	return s.around.Run(ctx, inferMethod, metrics.ModelInfer, do)
}

func exhausted(err error) error { return status.Errorf(status.ResourceExhausted, "%v", err) }
