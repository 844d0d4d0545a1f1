package oip

import (
	"slices"
	"strings"

	"sluicegate/go_infer/internal/jsontensor"
	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/rawtensor"
	"sluicegate/go_infer/internal/session"
	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/tensor"
)

// readInputs reads every input of the signature into memory of the model's pool.
func (f *inference) readInputs(span jsontensor.Span) error {
	if !span.Found() {
		return refuse("Unable to parse 'inputs': the request has none")
	}
	list, ok := jsontensor.Elements(f.body, span)
	if !ok {
		return refuse("Unable to parse 'inputs': it must be an array")
	}
	for item, more := list.Next(); more; item, more = list.Next() {
		if err := f.readInput(item); err != nil {
			return err
		}
	}
	if f.x.Left() > 0 {
		return refuse("unexpected additional input data for model '%s'", f.model.Name)
	}
	if f.given != len(f.signature.Inputs) {
		return f.missing()
	}
	return f.countRows()
}

// missing names the inputs that were not given, in Triton's words.
func (f *inference) missing() error {
	var got, missing []string
	for i := range f.signature.Inputs {
		name := "'" + f.signature.Inputs[i].Alias + "'"
		if present(&f.request.In[i]) {
			got = append(got, name)
		} else {
			missing = append(missing, name)
		}
	}
	return refuse("expected %d inputs but got %d inputs for model '%s'. Got inputs [%s], but missing required inputs [%s]. "+
		"Please provide all required inputs.", len(f.signature.Inputs), f.given, f.model.Name,
		strings.Join(got, ","), strings.Join(missing, ","))
}

func present(value *tensor.Value) bool { return value.Slab != nil || value.Strings != nil }

// countRows sets the number of rows, which every input must have if the model is run in batches.
func (f *inference) countRows() error {
	f.request.Rows = 1
	if !f.signature.Batchable() {
		return f.request.CountRows(f.signature.Signature)
	}
	rows := f.request.In[0].Dims[0]
	for i := range f.request.In {
		if f.request.In[i].Dims[0] != rows {
			return refuse("input '%s' batch size does not match other inputs for '%s'", f.signature.Inputs[i].Alias, f.model.Name)
		}
	}
	if rows == 0 {
		return refuse("inference request batch-size must be > 0 for '%s'", f.model.Name)
	}
	f.request.Rows = int(rows)
	return nil
}

func (f *inference) readInput(span jsontensor.Span) error {
	var at [5]jsontensor.Span // inputKeys
	if !jsontensor.Pick(f.body, span, inputKeys, at[:]) {
		return refuse("Unable to parse 'inputs': every input must be an object")
	}
	for _, member := range [...]struct {
		span  jsontensor.Span
		first byte
		what  string
	}{{at[0], '"', "'name': it must be a string"}, {at[1], '[', "'shape': it must be an array"}, {at[2], '"', "'datatype': it must be a string"}} {
		if !member.span.Found() || f.body[member.span.Start] != member.first {
			return refuse("Unable to parse %s", member.what)
		}
	}
	name := f.text(at[0])
	input := find(f.signature.Inputs, name)
	if input < 0 {
		return refuse("unexpected inference input '%s' for model '%s'", name, f.model.Name)
	}
	if present(&f.request.In[input]) {
		return refuse("input '%s' already exists in request", name)
	}
	info := &f.signature.Inputs[input]
	if datatype := f.text(at[2]); string(datatype) != datatypes[info.Type] {
		return refuse("inference input '%s' data-type is '%s', but model '%s' expects '%s'", name, datatype, f.model.Name, datatypes[info.Type])
	}
	var room [session.MaxRank]int64
	dims, err := f.shape(room[:0], at[1], info)
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
		return refuse("input '%s' must have either 'data' or the parameter 'binary_data_size'", name)
	case size >= 0:
		err = f.readBinary(input, dims, size)
	default:
		err = f.readJSON(input, dims, data)
	}
	f.given++
	return err
}

// shape reads a shape, which must be complete and as the signature has it.
func (f *inference) shape(dims []int64, span jsontensor.Span, info *model.TensorInfo) ([]int64, error) {
	list, _ := jsontensor.Elements(f.body, span)
	matches := true
	for item, more := list.Next(); more; item, more = list.Next() {
		dim, ok := jsontensor.Whole(f.body, item)
		if !ok || dim < 0 {
			return nil, refuse("Unable to parse 'shape': a dimension of input '%s' is not a whole number >= 0", info.Alias)
		}
		d := len(dims)
		if d == cap(dims) {
			return nil, refuse("input '%s' has more than the %d dimensions that are served", info.Alias, cap(dims))
		}
		if info.Known && (d >= len(info.Dims) || info.Dims[d] >= 0 && info.Dims[d] != dim) {
			matches = false
		}
		dims = append(dims, dim)
	}
	if !matches || info.Known && len(dims) != len(info.Dims) {
		return nil, refuse("unexpected shape for input '%s' for model '%s'. Expected %s, got %s",
			info.Alias, f.model.Name, info.Shape(), tensor.ShapeText(dims, true))
	}
	if !tensor.Possible(dims) {
		return nil, refuse("unexpected shape for input '%s' for model '%s'. The shape %s is not possible",
			info.Alias, f.model.Name, tensor.ShapeText(dims, true))
	}
	return dims, nil
}

// readBinary reads size bytes of the body to where the tensor shall lie.
func (f *inference) readBinary(input int, dims []int64, size int64) error {
	info := &f.signature.Inputs[input]
	if want := tensor.Elements(dims) * int64(info.Type.Size()); info.Type != tensor.String && want != size {
		return refuse("input byte size mismatch for input '%s' for model '%s'. Expected %d, got %d", info.Alias, f.model.Name, want, size)
	}
	if left := int64(f.x.Left()); size > left {
		return refuse("unexpected size for input '%s', expecting %d additional bytes for model '%s'", info.Alias, size-left, f.model.Name)
	}
	return rawtensor.Read(f.x, int(size), f.request, input, info.Alias, f.model.Pool(), info.Type, dims...)
}

// readJSON reads "data", flat or nested like the shape.
func (f *inference) readJSON(input int, dims []int64, data jsontensor.Span) error {
	info := &f.signature.Inputs[input]
	if f.body[data.Start] != '[' {
		return refuse("Unable to parse 'data': it must be an array (input '%s')", info.Alias)
	}
	// Every element takes at least two bytes of JSON, so a larger tensor cannot be filled by this body.
	n := tensor.Elements(dims)
	if n > int64(len(f.body)) {
		return refuse("input '%s' has shape %s; the request has not that many values", info.Alias, tensor.ShapeText(dims, true))
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
		return refuse("%v (input '%s' is %s %s)", err, info.Alias, datatypes[info.Type], tensor.ShapeText(dims, true))
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
	if f.signature, err = signature(f.model, ""); err != nil {
		return err
	}
	if n := len(f.signature.Inputs); n != 1 {
		return refuse("raw request must have exactly 1 input, but model '%s' has %d; send a JSON header (%s)", f.model.Name, n, headLength)
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
	f.given = 1
	if err == nil {
		err = f.countRows()
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
		return refuse("input '%s' is %s %s: a raw request of %d bytes cannot be that; send a JSON header (%s)",
			info.Alias, datatypes[info.Type], info.Shape(), size, headLength)
	}
	for i, dim := range dims {
		if dim < 0 {
			dims[i] = size / known
		}
	}
	return f.readBinary(0, dims, size)
}
