package jsontensor

import (
	"bytes"
	"slices"
	"strings"

	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/tensor"
)

// Row tells whether the request is in TF-Serving's row format ("instances") or columnar ("inputs").
func (d *Document) Row() (bool, error) {
	switch {
	case d.Instances.Found() && d.Inputs.Found():
		return false, status.Errorf(status.InvalidArgument,
			"JSON Value: %s Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ", Quote(d.Body))
	case d.Instances.Found():
		return true, nil
	case d.Inputs.Found():
		return false, nil
	}
	return false, status.Errorf(status.InvalidArgument, "Missing 'inputs' or 'instances' key")
}

// Read makes the request's tensors for a signature, in memory of the pool. The caller releases the request.
func (d *Document) Read(s *model.Signature, pool *tensor.Pool) (*model.Request, error) {
	row, err := d.Row()
	if err != nil {
		return nil, err
	}
	request := model.NewRequest(len(s.Inputs))
	r := requestReader{body: d.Body, s: s, pool: pool, request: request, filler: filler{text: d.Body}}
	if row {
		err = r.instances(d.Instances, d.rows)
	} else {
		err = r.columns(d.Inputs)
	}
	if err == nil {
		err = request.CountRows(s)
	}
	if err != nil {
		request.Release()
		return nil, err
	}
	return request, nil
}

type requestReader struct {
	body    []byte
	s       *model.Signature
	pool    *tensor.Pool
	request *model.Request
	filler  filler
	given   []int // for each input, the last instance that gave it, counted from 1
}

// instances reads {"instances": [...]}: a list of so many values of the only input, or of objects with every input by name.
func (r *requestReader) instances(span Span, total int) error {
	body := r.body
	if body[span.Start] != '[' {
		return status.Errorf(status.InvalidArgument, "JSON Value: %s Excepting 'instances' to be an list/array", Quote(body))
	}
	at, more := first(body, span.Start)
	if !more {
		return status.Errorf(status.InvalidArgument, "JSON Value: %s No values in 'instances' array", Quote(body))
	}
	if err := r.s.CheckRows(int64(total)); err != nil {
		return err
	}
	named := r.named(at)
	if body[at] != '{' && len(r.s.Inputs) > 1 {
		return status.Errorf(status.InvalidArgument,
			"instances is a plain list, but expecting list of objects as multiple input tensors required as per tensorinfo_map")
	}
	if named {
		r.given = make([]int, len(r.s.Inputs))
	}
	r.request.Rows = 1
	for item := 0; more; item++ {
		end, err := r.instance(at, item, total, named)
		if err != nil {
			return err
		}
		at, more = step(body, end)
	}
	return nil
}

// named tells whether at position at there is a set of named tensors.
func (r *requestReader) named(at int) bool { return r.body[at] == '{' && !isBase64(r.body, at) }

// instance reads one instance and returns the position after it.
func (r *requestReader) instance(at, item, total int, named bool) (int, error) {
	object := r.named(at)
	switch {
	case named && !object:
		return at, status.Errorf(status.InvalidArgument, "Expecting object but got list at item %d of input list", item)
	case !named && object:
		return at, status.Errorf(status.InvalidArgument, "Expecting value/list but got object at item %d of input list", item)
	case !named:
		end, err := r.cell(0, at, item, total)
		if err != nil {
			err = status.Errorf(status.InvalidArgument, "Failed to process element: %d of 'instances' list. Error: INVALID_ARGUMENT: %s", item, err)
		}
		return end, err
	}
	start, seen := at, 0
	at = skipSpace(r.body, at+1)
	for more := r.body[at] != '}'; more; {
		end := skipString(r.body, at)
		key := r.body[at:end]
		at = skipSpace(r.body, skipSpace(r.body, end)+1)
		input := r.input(key)
		if input < 0 {
			name := unquote(key)
			return at, status.Errorf(status.InvalidArgument,
				"Failed to process element: %d key: %s of 'instances' list. Error: INVALID_ARGUMENT: JSON object: does not have named input: %s",
				item, name, name)
		}
		if r.given[input] != item+1 { // a repeated key counts once; its last value stays
			r.given[input] = item + 1
			seen++
		}
		end, err := r.cell(input, at, item, total)
		if err != nil {
			return at, status.Errorf(status.InvalidArgument,
				"Failed to process element: %d key: %s of 'instances' list. Error: INVALID_ARGUMENT: %s", item, unquote(key), err)
		}
		at, more = next(r.body, end)
	}
	if seen != len(r.s.Inputs) {
		return at, status.Errorf(status.InvalidArgument,
			"Failed to process element: %d of 'instances' list. JSON object: %s keys must be equal to: %s",
			item, Quote(r.body[start:skip(r.body, start)]), r.names())
	}
	return at, nil
}

// input is the position of the input whose alias is this key, which has its quotes.
func (r *requestReader) input(key []byte) int {
	if bytes.IndexByte(key, '\\') >= 0 {
		return r.s.Input(unquote(key))
	}
	return r.s.Input(view(key[1 : len(key)-1]))
}

func (r *requestReader) names() string {
	var all []string
	for i := range r.s.Inputs {
		all = append(all, r.s.Inputs[i].Alias)
	}
	return strings.Join(all, ",")
}

// cell writes one instance of one input, which begins at position at, and returns the position after it. The first instance decides the
// shape that all must have.
func (r *requestReader) cell(input, at, item, total int) (int, error) {
	info := &r.s.Inputs[input]
	value := &r.request.In[input]
	decides := value.Slab == nil && value.Strings == nil
	if decides {
		var room [8]int64
		dims := append(room[:0], int64(total))
		if info.Known && len(info.Dims) > 0 {
			dims = append(dims, info.Dims[1:]...)
		}
		inner := Shape(r.body, Span{Start: at}, dims[1:], info.Known)
		if err := r.make(input, info, append(dims[:1], inner...)); err != nil {
			return at, err
		}
	}
	dims := value.Dims[1:]
	end, err := r.filler.into(at, value, item*int(tensor.Elements(dims)), dims)
	if err != nil && !decides {
		err = r.unlike(at, value, err)
	}
	if err != nil {
		return at, r.explain(info, err)
	}
	return end, nil
}

// unlike words the refusal of an instance that may be well formed by itself but is not like the first.
func (r *requestReader) unlike(at int, value *tensor.Value, err error) error {
	own := Shape(r.body, Span{Start: at}, nil, false)
	if slices.Equal(own, value.Dims[1:]) {
		return err
	}
	alone := model.NewRequest(1)
	defer alone.Release()
	if err := setInput(alone, 0, r.pool, value.Type, own); err != nil {
		return err
	}
	if _, err := r.filler.into(at, &alone.In[0], 0, own); err != nil {
		return err
	}
	if want, got := tensor.Elements(value.Dims[1:]), tensor.Elements(own); want != got {
		return refuse(at, "Expecting tensor size: %d but got: %d", want, got)
	}
	return refuse(at, "Expecting shape %s but got: %s", tensor.ShapeText(value.Dims[1:], true), tensor.ShapeText(own, true))
}

// columns reads {"inputs": ...}: the only input's value, or an object with every input by name.
func (r *requestReader) columns(span Span) error {
	r.request.Rows = 1
	if !r.named(span.Start) {
		if len(r.s.Inputs) > 1 {
			return status.Errorf(status.InvalidArgument,
				"inputs is a plain value/list, but expecting an object as multiple input tensors required as per tensorinfo_map")
		}
		return r.column(0, span)
	}
	for i := range r.s.Inputs {
		found := Member(r.body, span, r.s.Inputs[i].Alias)
		if !found.Found() {
			return status.Errorf(status.InvalidArgument, "Missing named input: %s in 'inputs' object.", r.s.Inputs[i].Alias)
		}
		if err := r.column(i, found); err != nil {
			return err
		}
	}
	return nil
}

func (r *requestReader) column(input int, span Span) error {
	info := &r.s.Inputs[input]
	dims := Shape(r.body, span, slices.Clone(info.Dims), info.Known)
	if len(dims) > 0 {
		if err := r.s.CheckRows(dims[0]); err != nil {
			return err
		}
	}
	if err := r.make(input, info, dims); err != nil {
		return err
	}
	if _, err := r.filler.into(span.Start, &r.request.In[input], 0, dims); err != nil {
		return r.explain(info, err)
	}
	return nil
}

func (r *requestReader) make(input int, info *model.TensorInfo, dims []int64) error {
	size := int64(max(info.Type.Size(), 1))
	for _, dim := range dims {
		// Every element takes at least two bytes of JSON ("1,"), so a larger tensor cannot be filled by this body.
		if size *= max(dim, 1); size > 8*int64(len(r.body))+1<<16 {
			return status.Errorf(status.InvalidArgument, "input %q has shape %s; the request has not that many values", info.Alias, info.Shape())
		}
	}
	if info.Type == tensor.String && r.filler.strings == nil {
		r.filler.strings = &arena{make([]byte, 0, len(r.body))}
	}
	return setInput(r.request, input, r.pool, info.Type, dims)
}

// setInput makes an input that is to be filled.
func setInput(request *model.Request, input int, pool *tensor.Pool, dtype tensor.DType, dims []int64) error {
	if dtype == tensor.String {
		return request.SetStrings(input, make([][]byte, tensor.Elements(dims)), dims...)
	}
	if _, err := request.SetInput(input, pool, dtype, dims...); err != nil {
		return status.Errorf(status.ResourceExhausted, "%v", err)
	}
	return nil
}

// explain adds which input the refusal is about and what it should have been.
func (r *requestReader) explain(info *model.TensorInfo, err error) error {
	return status.Errorf(status.InvalidArgument, "%s (input %q is %v %s)", err, info.Alias, info.Type, info.Shape())
}
