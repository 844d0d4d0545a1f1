package oip

import (
	"context"
	"net/http"
	"reflect"
	"slices"
	"sync"
	"time"

	"sluicegate/go_infer/internal/api"
	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/jsontensor"
	"sluicegate/go_infer/internal/metrics"
	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/repository"
	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/tensor"
	"sluicegate/go_infer/internal/triton"
)

// headLength is the header that says how many bytes of a body are JSON; raw tensors follow them.
const headLength = "Inference-Header-Content-Length"

// inference is one request in work. It is pooled: nothing of it is kept by who has returned.
type inference struct {
	x         *api.Exchange
	model     *model.Model
	signature *model.Servable
	request   *model.Request

	body    []byte // the JSON
	id      jsontensor.Span
	policy  policy
	binary  bool     // outputs are binary unless they say otherwise
	outputs []wanted // in the order of the answer

	// of one that is answered later
	lease *repository.Lease
	head  int
}

// policy is what the schedule_policy extension asks for.
type policy struct {
	class   batch.Class
	timeout time.Duration // 0: none
}

// wanted is an output of the answer.
type wanted struct {
	output  int
	binary  bool
	classes int          // best classes in place of the values; 0: the values
	value   tensor.Value // what the answer shows
}

var inferences = sync.Pool{New: func() any { return &inference{} }}

// admit refuses by its head what an overloaded model could not answer in time, however urgent the parameters in the body may say it is.
func (h *Handler) admit(x *api.Exchange, t *target) error {
	m := h.Repository.Glance(t.model, t.wanted)
	if m == nil {
		return nil
	}
	return overloaded(m, x)
}

// overloaded refuses what could not be answered in time even if the parameters said that it is as urgent as it may be.
func overloaded(m *model.Model, x *api.Exchange) error {
	class := x.Class
	if x.TrustPriority {
		class = batch.Critical
	}
	return m.Overloaded(x.Context, class)
}

func (h *Handler) infer(x *api.Exchange, t *target) error {
	lease, err := h.find(x.Context, t)
	if err != nil {
		return err
	}
	defer func() {
		if lease != nil {
			lease.Release()
		}
	}()
	m := lease.Model
	f := inferences.Get().(*inference)
	*f = inference{x: x, model: m, body: x.Body, outputs: f.outputs[:0]}
	defer f.recycle()
	slow := x.Coming() && h.Repository.Evicts()
	if slow { // at the client's pace; what a request's tensors must be like is known without the model's memory
		lease.Release()
		lease = nil
	}
	err = f.readBody(t.head)
	if err == nil && slow {
		if lease, err = h.again(x.Context, t, m); err == nil {
			err = f.adopt(lease.Model)
		}
	}
	if err == nil {
		err = f.Run(x.Context)
	}
	if err != nil {
		return err
	}
	return f.Write()
}

// Start begins to answer an inference, and waits for nothing; see api.Exchange.Start. False: it is none, or one that may have to wait;
// nothing has happened, and Serve can do it.
func (h *Handler) Start(w http.ResponseWriter, r *http.Request, resume func(answer func() int) (after func())) bool {
	t, err := parse(r.URL.Path)
	if err != nil || t.operation.endpoint != metrics.ModelInfer || r.Method != http.MethodPost {
		return false
	}
	if t.head, err = headOf(r); err != nil {
		return false
	}
	lease := h.Repository.Held(t.model, t.wanted)
	if lease == nil {
		return false
	}
	x, err := api.Open(w, r, h.Limits, t.head)
	if x == nil {
		lease.Release()
		return false
	}
	f := inferences.Get().(*inference)
	*f = inference{x: x, model: lease.Model, body: x.Body, outputs: f.outputs[:0], lease: lease, head: t.head}
	x.Start(f, resume, err)
	return true
}

// Read reads the request, unless the model is overloaded.
func (f *inference) Read() error {
	if err := overloaded(f.model, f.x); err != nil {
		return err
	}
	return f.readBody(f.head)
}

func (f *inference) readBody(head int) error {
	if head == 0 {
		return f.readRaw()
	}
	return f.read(head)
}

// Quick says that the outputs take no more than so many bytes. Who has set a time limit waits.
func (f *inference) Quick(bytes int) bool {
	return f.policy.timeout == 0 && f.signature.Small(f.request.Rows, bytes)
}

// Free gives back what the inference holds.
func (f *inference) Free(error) {
	lease := f.lease
	f.recycle()
	lease.Release()
}

// adopt continues a request that was read for one model with another: the same version loaded again, or the one that took its place.
func (f *inference) adopt(m *model.Model) error {
	if m == f.model {
		return nil
	}
	before := f.signature.Signature
	after, err := m.Signature(before.Name)
	if err == nil && (!reflect.DeepEqual(before.Inputs, after.Inputs) || !reflect.DeepEqual(before.Outputs, after.Outputs)) {
		err = status.Errorf(status.Unavailable, "model '%s' was replaced by version %d, which takes other tensors, while the request was "+
			"read; send it again", m.Name, m.Version)
	}
	if err == nil {
		f.model, f.signature = m, after
	}
	return err
}

func (f *inference) recycle() {
	if f.request != nil {
		f.request.Release()
	}
	clear(f.outputs)
	*f = inference{outputs: f.outputs[:0]}
	inferences.Put(f)
}

// class is what comes of what the request and its parameters say of its urgency.
func (f *inference) class() batch.Class {
	return batch.Claim(f.policy.class, f.x.Class, f.x.TrustPriority)
}

// patience narrows the context to the time that the parameters allow; cancel is to be called.
func (f *inference) patience(ctx context.Context) (narrowed context.Context, cancel context.CancelFunc) {
	if f.policy.timeout > 0 {
		return context.WithTimeout(ctx, f.policy.timeout)
	}
	return ctx, func() {}
}

// admit refuses before its tensors are read what cannot be answered as its parameters want it.
func (f *inference) admit() error {
	ctx, cancel := f.patience(f.x.Context)
	defer cancel()
	return f.signature.Overloaded(ctx, f.class())
}

// Run waits until the request has been run.
func (f *inference) Run(ctx context.Context) error {
	ctx, cancel := f.patience(ctx)
	defer cancel()
	f.request.Class = f.class()
	return f.signature.Run(ctx, f.request)
}

// Start does not.
func (f *inference) Start(ctx batch.Context, ended func(err error) (after func())) error {
	f.request.Class = f.class()
	return f.signature.Start(ctx, f.request, ended)
}

// The members of a request and of its parts.
var (
	requestKeys = []string{"id", "parameters", "inputs", "outputs"}
	inputKeys   = []string{"name", "shape", "datatype", "parameters", "data"}
	outputKeys  = []string{"name", "parameters"}
)

// read reads a request whose first head bytes, or all, are JSON.
func (f *inference) read(head int) error {
	if length := len(f.body) + f.x.Left(); head > length {
		return triton.Refuse("inference header size should be in range (0, %d), got: %d", length, head)
	}
	var at [4]jsontensor.Span // requestKeys
	if err := jsontensor.Object(f.body, requestKeys, at[:]); err != nil {
		return err
	}
	if f.id = at[0]; f.id.Found() && f.body[f.id.Start] != '"' {
		return triton.Refuse("Unable to parse 'id': it must be a string")
	}
	name, err := f.parameters(at[1])
	if err != nil {
		return err
	}
	if f.signature, err = triton.Signature(f.model, name); err != nil {
		return err
	}
	if err := f.admit(); err != nil {
		return err
	}
	f.request = model.NewRequest(len(f.signature.Inputs))
	if err := f.readInputs(at[2]); err != nil {
		return err
	}
	return f.readOutputs(at[3])
}

// readOutputs notes what the answer is to have; without "outputs", everything.
func (f *inference) readOutputs(span jsontensor.Span) error {
	if span.Found() {
		list, ok := jsontensor.Elements(f.body, span)
		if !ok {
			return triton.Refuse("Unable to parse 'outputs': it must be an array")
		}
		for item, more := list.Next(); more; item, more = list.Next() {
			if err := f.readOutput(item); err != nil {
				return err
			}
		}
	}
	if len(f.outputs) == 0 {
		for i := range f.signature.Outputs {
			f.outputs = append(f.outputs, wanted{output: i, binary: f.binary})
		}
	}
	return nil
}

func (f *inference) readOutput(span jsontensor.Span) error {
	var at [2]jsontensor.Span // outputKeys
	if !jsontensor.Pick(f.body, span, outputKeys, at[:]) || !at[0].Found() || f.body[at[0].Start] != '"' {
		return triton.Refuse("Unable to parse 'outputs': every output must be an object with a 'name'")
	}
	output, err := triton.Output(f.signature, f.text(at[0]), func(at int) bool {
		return slices.ContainsFunc(f.outputs, func(earlier wanted) bool { return earlier.output == at })
	})
	if err != nil {
		return err
	}
	w := wanted{output: output, binary: f.binary}
	if err := f.outputParameters(at[1], &w); err != nil {
		return err
	}
	f.outputs = append(f.outputs, w)
	return nil
}

// text is a string of the document without its quotes, in place; if it has escapes, it is decoded.
func (f *inference) text(span jsontensor.Span) []byte {
	raw := f.body[span.Start+1 : span.End-1]
	for _, b := range raw {
		if b == '\\' {
			decoded, _ := jsontensor.Text(f.body, span)
			return []byte(decoded)
		}
	}
	return raw
}
