package tfserving

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"sluicegate/go_infer/internal/grpcserver/rpc"
	"sluicegate/go_infer/internal/grpcserver/wire"
	"sluicegate/go_infer/internal/metrics"
	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/tensor"
)

// predict answers Predict.
func (s *Service) predict(ctx context.Context, in *rpc.Message) (answer any, err error) {
	begun := time.Now()
	q := predictRequests.Get().(*predictRequest)
	defer q.recycle()
	if err := q.read(wire.Over(in.Data)); err != nil {
		return nil, err
	}
	if !q.spec.given {
		return nil, errMissingSpec
	}
	defer func() { s.answered(metrics.PredictAPI, q.spec.name, begun, err) }()
	lease, err := s.find(ctx, string(q.spec.name), q.spec.wanted)
	if err != nil {
		return nil, err
	}
	defer lease.Release()
	servable, err := predictable(lease.Model, q.spec.signature)
	if err != nil {
		return nil, err
	}
	if err := servable.Overloaded(ctx, rpc.Class(ctx)); err != nil {
		return nil, err // at once, and not after copying what cannot be served
	}
	request, err := s.tensors(q, servable)
	if err != nil {
		return nil, err
	}
	defer request.Release()
	request.Class = rpc.Class(ctx)
	outputs, err := q.outputs(servable.Signature)
	if err != nil {
		return nil, err
	}
	if err := servable.Run(ctx, request); err != nil {
		return nil, err
	}
	return s.answer(q, servable, request, outputs)
}

// predictable finds the signature to run. Predict runs any; the text is that of predict_util.cc.
func predictable(found *model.Model, name []byte) (*model.Servable, error) {
	servable, known := found.Signatures[model.DefaultSignature]
	if len(name) > 0 {
		servable, known = found.Signatures[string(name)]
	}
	switch {
	case !known && len(name) == 0:
		return nil, status.Errorf(status.FailedPrecondition, "Serving signature key %q not found.", model.DefaultSignature)
	case !known:
		return nil, status.Errorf(status.FailedPrecondition, "Serving signature key \"%s\" not found.", name)
	case servable.Refused != "":
		return nil, status.Errorf(status.Unimplemented, "%s", servable.Refused)
	}
	return servable, nil
}

// tensors copies the inputs from where they were received to where TensorFlow reads them. The caller releases the request.
func (s *Service) tensors(q *predictRequest, servable *model.Servable) (*model.Request, error) {
	signature := servable.Signature
	if len(q.inputs) != len(signature.Inputs) {
		return nil, q.mismatch(signature)
	}
	request := model.NewRequest(len(signature.Inputs))
	for i := range signature.Inputs {
		info := &signature.Inputs[i]
		given := -1
		for j := range q.inputs {
			if string(q.inputs[j].alias) == info.Alias {
				given = j
			}
		}
		if given < 0 {
			request.Release()
			return nil, q.mismatch(signature)
		}
		if err := s.tensor(q, q.inputs[given].tensor, info, i, request, servable.Model.Pool()); err != nil {
			request.Release()
			return nil, err
		}
	}
	if err := request.CountRows(signature); err != nil {
		request.Release()
		return nil, err
	}
	return request, nil
}

// tensor reads one input.
func (s *Service) tensor(q *predictRequest, message wire.Reader, info *model.TensorInfo, i int, request *model.Request, pool *tensor.Pool) error {
	unreadable := func(err error) error {
		return status.Errorf(status.InvalidArgument, "tensor parsing error: %s: %v", info.Alias, err)
	}
	if err := q.proto.Read(message, s.MaxTensor); err != nil {
		return unreadable(err)
	}
	if q.proto.Type != info.Type {
		return status.Errorf(status.InvalidArgument, "Expects arg[%d] to be %v but %v is provided (input %q is %v %s)",
			i, info.Type, q.proto.Type, info.Alias, info.Type, info.Shape())
	}
	if !info.Fits(q.proto.Dims) {
		return status.Errorf(status.InvalidArgument, "input %q has shape %s; the signature takes %s",
			info.Alias, tensor.ShapeText(q.proto.Dims, true), info.Shape())
	}
	if info.Type == tensor.String {
		strings, err := q.proto.Strings()
		if err != nil {
			return unreadable(err)
		}
		return request.SetStrings(i, strings, q.proto.Dims...)
	}
	value, err := request.SetInput(i, pool, info.Type, q.proto.Dims...)
	if err != nil {
		return status.Errorf(status.ResourceExhausted, "%v", err)
	}
	if err := q.proto.Fill(value.Bytes()); err != nil {
		return unreadable(err)
	}
	return nil
}

// mismatch says which inputs are missing and which are too many.
func (q *predictRequest) mismatch(signature *model.Signature) error {
	var sent, wanted, extra, missing []string
	for i := range q.inputs {
		alias := string(q.inputs[i].alias)
		sent = append(sent, alias)
		if signature.Input(alias) < 0 {
			extra = append(extra, alias)
		}
	}
	slices.Sort(sent)
	slices.Sort(extra)
	for i := range signature.Inputs {
		alias := signature.Inputs[i].Alias
		wanted = append(wanted, alias)
		if q.input([]byte(alias)) < 0 {
			missing = append(missing, alias)
		}
	}
	list := func(all []string) string { return strings.Join(all, ",") }
	return status.Errorf(status.InvalidArgument,
		"input size does not match signature: %d!=%d len({%s}) != len({%s}). Sent extra: {%s}. Missing but required: {%s}.",
		len(sent), len(wanted), list(sent), list(wanted), list(extra), list(missing))
}

// outputs are the positions of the outputs to answer with; nil is all.
func (q *predictRequest) outputs(signature *model.Signature) ([]int, error) {
	var chosen []int
	for _, alias := range q.filter {
		at := signature.Output(string(alias))
		if at < 0 {
			var all []string
			for i := range signature.Outputs {
				all = append(all, signature.Outputs[i].Alias)
			}
			return nil, status.Errorf(status.InvalidArgument,
				"output tensor alias not found in signature: %s Outputs expected to be in the set {%s}.", alias, strings.Join(all, ","))
		}
		if slices.Contains(chosen, at) {
			return nil, status.Errorf(status.InvalidArgument, "duplicate output tensor alias: %s", alias)
		}
		chosen = append(chosen, at)
	}
	return chosen, nil
}

// answer writes PredictResponse: outputs 1 (map<string, TensorProto>), model_spec 2.
func (s *Service) answer(q *predictRequest, servable *model.Servable, request *model.Request, chosen []int) (*rpc.Message, error) {
	count := len(chosen)
	if chosen == nil {
		count = len(request.Out)
	}
	output := func(n int) int {
		if chosen == nil {
			return n
		}
		return chosen[n]
	}
	total := 0
	for n := range count {
		i := output(n)
		size := s.Writer.Size(&request.Out[i])
		q.sizes = append(q.sizes, size)
		total += field(field(len(servable.Outputs[i].Alias)) + field(size))
	}
	spec := specSize(servable)
	total += field(spec)
	return rpc.Answer(total, func(b []byte) []byte {
		for n := range count {
			i := output(n)
			alias := servable.Outputs[i].Alias
			b = open(b, 1, field(len(alias))+field(q.sizes[n]))
			b = append(open(b, 1, len(alias)), alias...)
			b = s.Writer.Append(open(b, 2, q.sizes[n]), &request.Out[i])
		}
		return appendSpec(open(b, 2, spec), servable)
	})
}

// field is the bytes of a length-delimited field of a number below 16 that holds n bytes.
func field(n int) int { return 1 + protowire.SizeVarint(uint64(n)) + n }

// open begins such a field.
func open(b []byte, number byte, n int) []byte {
	return protowire.AppendVarint(append(b, number<<3|byte(wire.Bytes)), uint64(n))
}

func versionSize(version int64) int {
	if version == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(uint64(version))
}

// specSize is the bytes of the ModelSpec that says what answered: name 1, version 2 (Int64Value), signature_name 3.
func specSize(servable *model.Servable) int {
	return field(len(servable.Model.Name)) + field(versionSize(servable.Model.Version)) + field(len(servable.Name))
}

func appendSpec(b []byte, servable *model.Servable) []byte {
	m := servable.Model
	b = append(open(b, 1, len(m.Name)), m.Name...)
	b = open(b, 2, versionSize(m.Version))
	if m.Version != 0 {
		b = protowire.AppendVarint(append(b, 1<<3), uint64(m.Version))
	}
	return append(open(b, 3, len(servable.Name)), servable.Name...)
}
