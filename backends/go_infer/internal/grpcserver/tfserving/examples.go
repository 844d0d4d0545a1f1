package tfserving

import (
	"context"
	"time"

	"sluicegate/go_infer/internal/examples"
	"sluicegate/go_infer/internal/grpcserver/rpc"
	"sluicegate/go_infer/internal/grpcserver/wire"
	"sluicegate/go_infer/internal/metrics"
	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/pb/serving"
	"sluicegate/go_infer/internal/repository"
	"sluicegate/go_infer/internal/status"
)

// examplesRequest is a ClassificationRequest or RegressionRequest (model_spec 1, input 2) or a MultiInferenceRequest (tasks 1,
// input 2). The examples stay serialized: that is what the graph takes.
type examplesRequest struct {
	tasks      []task
	serialized [][]byte
}

// task is an InferenceTask: model_spec 1, method_name 2.
type task struct {
	spec   modelSpec
	method []byte
}

// read reads any of the three; several says that field 1 is the tasks and not one model_spec.
func (q *examplesRequest) read(message wire.Reader, several bool) (err error) {
	for field, kind := message.Next(); field != 0 && err == nil; field, kind = message.Next() {
		switch {
		case field == 1 && kind == wire.Bytes && several:
			next := task{}
			err = next.read(message.Message())
			q.tasks = append(q.tasks, next)
		case field == 1 && kind == wire.Bytes:
			if len(q.tasks) == 0 {
				q.tasks = []task{{}}
			}
			err = q.tasks[0].spec.read(message.Message())
		case field == 2 && kind == wire.Bytes:
			q.serialized, err = readInput(message.Message())
		default:
			message.Skip(kind)
		}
	}
	if err == nil {
		err = message.Err()
	}
	return malformed("the request", err)
}

func (t *task) read(message wire.Reader) error {
	for field, kind := message.Next(); field != 0; field, kind = message.Next() {
		switch {
		case field == 1 && kind == wire.Bytes:
			if err := t.spec.read(message.Message()); err != nil {
				return err
			}
		case field == 2 && kind == wire.Bytes:
			t.method = message.Text()
		default:
			message.Skip(kind)
		}
	}
	return message.Err()
}

// readInput reads Input: example_list 1 {examples 1} or example_list_with_context 2 {examples 1, context 2}. A context counts as a
// part of every example: two serialized messages, one after the other, are their merger.
func readInput(message wire.Reader) (all [][]byte, err error) {
	for field, kind := message.Next(); field != 0; field, kind = message.Next() {
		if kind != wire.Bytes || field > 2 {
			message.Skip(kind)
			continue
		}
		list := message.Message()
		context, count := 0, 0
		var contexts []wire.Reader
		var texts []wire.Reader
		for inner, kind := list.Next(); inner != 0; inner, kind = list.Next() {
			switch {
			case inner == 1 && kind == wire.Bytes:
				texts = append(texts, list.Message())
				count += texts[len(texts)-1].Len()
			case inner == 2 && kind == wire.Bytes && field == 2:
				contexts = append(contexts, list.Message())
				context += contexts[len(contexts)-1].Len()
			default:
				list.Skip(kind)
			}
		}
		if err := list.Err(); err != nil {
			return nil, err
		}
		if context > 0 && len(texts) > maxContexts/context {
			return nil, status.Errorf(status.InvalidArgument, "a context of %d bytes for %d examples is too large", context, len(texts))
		}
		all = make([][]byte, len(texts)) // a later kind takes the place of an earlier one
		arena := make([]byte, count+context*len(texts))
		for i := range texts {
			n := context + texts[i].Len()
			all[i] = arena[:n:n]
			at := arena[:n]
			for _, part := range append(contexts[:len(contexts):len(contexts)], texts[i]) {
				size := part.Len()
				part.CopyTo(at[:size])
				at = at[size:]
			}
			arena = arena[n:]
		}
	}
	return all, message.Err()
}

// maxContexts bounds what one context may grow to when every example gets it, in bytes.
const maxContexts = 1 << 28

// only finds the model of a request with one task.
func (s *Service) only(ctx context.Context, q *examplesRequest) (*repository.Lease, string, error) {
	if len(q.tasks) == 0 || !q.tasks[0].spec.given {
		return nil, "", errMissingSpec
	}
	spec := &q.tasks[0].spec
	lease, err := s.find(ctx, string(spec.name), spec.wanted)
	if err != nil {
		return nil, "", err
	}
	if err := lease.Model.Overloaded(ctx, rpc.Class(ctx)); err != nil {
		lease.Release()
		return nil, "", err
	}
	return lease, string(spec.signature), nil
}

// name is the model that the request names first, empty if none.
func (q *examplesRequest) name() []byte {
	if len(q.tasks) == 0 {
		return nil
	}
	return q.tasks[0].spec.name
}

func (s *Service) classify(ctx context.Context, in *rpc.Message) (answer any, err error) {
	begun, q := time.Now(), examplesRequest{}
	if err := q.read(wire.Over(in.Data), false); err != nil {
		return nil, err
	}
	defer func() { s.answered(metrics.ClassifyAPI, q.name(), begun, err) }()
	lease, name, err := s.only(ctx, &q)
	if err != nil {
		return nil, err
	}
	defer lease.Release()
	servable, err := examples.Signature(lease.Model, name, examples.ClassifyMethod)
	if err != nil {
		return nil, err
	}
	result, err := classification(ctx, servable, q.serialized)
	return &serving.ClassificationResponse{Result: result, ModelSpec: specOf(servable)}, err
}

func (s *Service) regress(ctx context.Context, in *rpc.Message) (answer any, err error) {
	begun, q := time.Now(), examplesRequest{}
	if err := q.read(wire.Over(in.Data), false); err != nil {
		return nil, err
	}
	defer func() { s.answered(metrics.RegressAPI, q.name(), begun, err) }()
	lease, name, err := s.only(ctx, &q)
	if err != nil {
		return nil, err
	}
	defer lease.Release()
	servable, err := examples.Signature(lease.Model, name, examples.RegressMethod)
	if err != nil {
		return nil, err
	}
	result, err := regression(ctx, servable, q.serialized)
	return &serving.RegressionResponse{Result: result, ModelSpec: specOf(servable)}, err
}

// multiInference answers MultiInference: several signatures of one model on the same examples. Each is a Run of its own.
func (s *Service) multiInference(ctx context.Context, in *rpc.Message) (any, error) {
	q := examplesRequest{}
	if err := q.read(wire.Over(in.Data), true); err != nil {
		return nil, err
	}
	lease, _, err := s.only(ctx, &q)
	if err != nil {
		return nil, err
	}
	defer lease.Release()
	servables, err := q.plan(lease.Model)
	if err != nil {
		return nil, err
	}
	answer := &serving.MultiInferenceResponse{}
	for i, servable := range servables {
		result := &serving.InferenceResult{ModelSpec: specOf(servable)}
		if string(q.tasks[i].method) == examples.ClassifyMethod {
			classes, err := classification(ctx, servable, q.serialized)
			if err != nil {
				return nil, err
			}
			result.Result = &serving.InferenceResult_ClassificationResult{ClassificationResult: classes}
		} else {
			values, err := regression(ctx, servable, q.serialized)
			if err != nil {
				return nil, err
			}
			result.Result = &serving.InferenceResult_RegressionResult{RegressionResult: values}
		}
		answer.Results = append(answer.Results, result)
	}
	return answer, nil
}

// plan finds the signature of every task, and refuses what multi_inference.cc refuses.
func (q *examplesRequest) plan(found *model.Model) ([]*model.Servable, error) {
	invalid := func(format string, arguments ...any) error {
		return status.Errorf(status.InvalidArgument, format, arguments...)
	}
	servables := make([]*model.Servable, 0, len(q.tasks))
	seen := map[string]bool{}
	for i := range q.tasks {
		t := &q.tasks[i]
		name := string(t.spec.signature)
		if name == "" {
			name = model.DefaultSignature
		}
		servable, known := found.Signatures[name]
		switch method := string(t.method); {
		case len(t.spec.name) == 0:
			return nil, invalid("Found ModelSpec with an empty model name.")
		case string(t.spec.name) != found.Name:
			return nil, invalid("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
		case seen[name]:
			return nil, invalid("Duplicate evaluation of signature: %s", name)
		case !known:
			return nil, invalid("Requested signature not found in model graph: %s", name)
		case method != examples.ClassifyMethod && method != examples.RegressMethod:
			return nil, status.Errorf(status.Unimplemented, "Unsupported signature method_name: %s", method)
		}
		if err := examples.Check(servable, string(t.method)); err != nil {
			return nil, err
		}
		if len(servables) > 0 && servables[0].Inputs[0].Name != servable.Inputs[0].Name {
			return nil, invalid("Input tensor must be the same for all Signatures.")
		}
		seen[name] = true
		servables = append(servables, servable)
	}
	return servables, nil
}

func classification(ctx context.Context, servable *model.Servable, serialized [][]byte) (*serving.ClassificationResult, error) {
	rows, err := examples.Classify(ctx, servable, serialized, rpc.Class(ctx))
	if err != nil {
		return nil, err
	}
	result := &serving.ClassificationResult{}
	for _, row := range rows {
		classes := make([]*serving.Class, len(row))
		for i, class := range row {
			classes[i] = &serving.Class{Label: class.Label, Score: class.Score}
		}
		result.Classifications = append(result.Classifications, &serving.Classifications{Classes: classes})
	}
	return result, nil
}

func regression(ctx context.Context, servable *model.Servable, serialized [][]byte) (*serving.RegressionResult, error) {
	values, err := examples.Regress(ctx, servable, serialized, rpc.Class(ctx))
	if err != nil {
		return nil, err
	}
	result := &serving.RegressionResult{}
	for _, value := range values {
		result.Regressions = append(result.Regressions, &serving.Regression{Value: value})
	}
	return result, nil
}

// specOf says what answered.
func specOf(servable *model.Servable) *serving.ModelSpec {
	return &serving.ModelSpec{Name: servable.Model.Name, VersionChoice: version(servable.Model), SignatureName: servable.Name}
}
