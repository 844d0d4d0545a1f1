package oip

import (
	"slices"

	"sluicegate/go_infer/internal/jsontensor"
	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/session"
	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/tensor"
	"sluicegate/go_infer/internal/triton"
)

// readInputs reads every input of the signature into memory of the model's pool.
func (f *inference) readInputs(span jsontensor.Span) error {
	if !span.Found() {
		return triton.Complete(f.signature, f.request)
	}
	list, ok := jsontensor.Elements(f.body, span)
	if !ok {
		return triton.Refuse("Unable to parse 'inputs': it must be an array")
	}
	for item, more := list.Next(); more; item, more = list.Next() {
		if err := f.readInput(item); err != nil {
			return err
		}
	}
	if f.x.Left() > 0 {
		return triton.Refuse("unexpected additional input data for model '%s'", f.model.Name)
	}
	return triton.Complete(f.signature, f.request)
}

func (f *inference) readInput(span jsontensor.Span) error {
	var at [5]jsontensor.Span // inputKeys
	if !jsontensor.Pick(f.body, span, inputKeys, at[:]) {
		return triton.Refuse("Unable to parse 'inputs': every input must be an object")
	}
	for _, member := range [...]struct {
		span  jsontensor.Span
		first byte
		what  string
	}{{at[0], '"', "'name': it must be a string"}, {at[1], '[', "'shape': it must be an array"}, {at[2], '"', "'datatype': it must be a string"}} {
		if !member.span.Found() || f.body[member.span.Start] != member.first {
			return triton.Refuse("Unable to parse %s", member.what)
		}
	}
	name := f.text(at[0])
	input, err := triton.Input(f.signature, f.request, name, f.text(at[2]))
	if err != nil {
		return err
	}
	var room [session.MaxRank]int64
	dims, err := f.shape(room[:0], at[1], input)
	if err != nil {
		return err
	}
	size, err := f.inputParameters(at[3])
	if err != nil {
		return err
	}
	data := at[4]
	switch {
	case data.Found() == (size >= 0):
		return triton.Refuse("input '%s' must have either 'data' or the parameter 'binary_data_size'", name)
	case size >= 0:
		err = f.readBinary(input, dims, size)
	default:
		err = f.readJSON(input, dims, data)
	}
	return err
}

// shape reads a shape, which must be complete and as the signature has it.
func (f *inference) shape(dims []int64, span jsontensor.Span, input int) ([]int64, error) {
	list, _ := jsontensor.Elements(f.body, span)
	for item, more := list.Next(); more; item, more = list.Next() {
		dim, ok := jsontensor.Whole(f.body, item)
		if !ok {
			return nil, triton.Refuse("Unable to parse 'shape': a dimension of input '%s' is not a whole number", f.signature.Inputs[input].Alias)
		}
		if dims = append(dims, dim); len(dims) > session.MaxRank { // and no more
			break
		}
	}
	return dims, triton.Shape(f.signature, input, dims)
}

// readBinary reads size bytes of the body to where the tensor shall lie.
func (f *inference) readBinary(input int, dims []int64, size int64) error {
	return triton.Raw(f.x, int(size), f.x.Left(), f.signature, f.request, input, dims)
}

// readJSON reads "data", flat or nested like the shape.
func (f *inference) readJSON(input int, dims []int64, data jsontensor.Span) error {
	info := &f.signature.Inputs[input]
	if f.body[data.Start] != '[' {
		return triton.Refuse("Unable to parse 'data': it must be an array (input '%s')", info.Alias)
	}
	// Every element takes at least two bytes of JSON, so a larger tensor cannot be filled by this body.
	n := tensor.Elements(dims)
	if n > int64(len(f.body)) {
		return triton.Refuse("input '%s' has shape %s; the request has not that many values", info.Alias, tensor.ShapeText(dims, true))
	}
	layout := dims
	if flat := [1]int64{n}; !f.nested(data) {
		layout = flat[:]
	}
	if info.Type == tensor.String {
		return f.readStrings(input, dims, layout, n, data)
	}
	value, err := f.request.SetInput(input, f.model.Pool(), info.Type, dims...)
	if err != nil {
		return status.Errorf(status.ResourceExhausted, "%v", err)
	}
	if err := jsontensor.Fill(f.body, data, value, 0, layout); err != nil {
		return triton.Refuse("%v (input '%s' is %s %s)", err, info.Alias, triton.Datatypes[info.Type], tensor.ShapeText(dims, true))
	}
	return nil
}

// nested says whether the first element of a list is itself a list.
func (f *inference) nested(data jsontensor.Span) bool {
	list, _ := jsontensor.Elements(f.body, data)
	item, more := list.Next()
	return more && f.body[item.Start] == '['
}

// readRaw reads a body without JSON: it is the only input's data, whole. The one dimension that the signature leaves open, if there is
// one, follows from the size. The answer is binary.
func (f *inference) readRaw() (err error) {
	if f.signature, err = triton.Signature(f.model, ""); err != nil {
		return err
	}
	if n := len(f.signature.Inputs); n != 1 {
		return triton.Refuse("raw request must have exactly 1 input, but model '%s' has %d; send a JSON header (%s)", f.model.Name, n, headLength)
	}
	if err := f.admit(); err != nil {
		return err
	}
	f.request = model.NewRequest(1)
	f.binary = true
	info := &f.signature.Inputs[0]
	size := int64(f.x.Left())
	if info.Type == tensor.String {
		err = f.rawString(info, size)
	} else {
		err = f.rawNumbers(info, size)
	}
	if err == nil {
		err = triton.Complete(f.signature, f.request)
	}
	if err != nil {
		return err
	}
	return f.readOutputs(jsontensor.Span{})
}

func (f *inference) rawNumbers(info *model.TensorInfo, size int64) error {
	open := 0
	known := int64(info.Type.Size())
	dims := slices.Clone(info.Dims)
	for _, dim := range dims {
		if dim < 0 {
			open++
		} else {
			known *= dim
		}
	}
	if !info.Known || open > 1 || known == 0 || open == 1 && size%known != 0 || open == 0 && size != known {
		return triton.Refuse("input '%s' is %s %s: a raw request of %d bytes cannot be that; send a JSON header (%s)",
			info.Alias, triton.Datatypes[info.Type], info.Shape(), size, headLength)
	}
	for i, dim := range dims {
		if dim < 0 {
			dims[i] = size / known
		}
	}
	return f.readBinary(0, dims, size)
}
