package jsontensor

import (
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
	r := requestReader{body: d.Body, s: s, pool: pool, request: request}
	if row {
		err = r.instances(d.Instances)
	} else {
		err = r.columns(d.Inputs)
	}
	if err == nil && s.Batchable() {
		err = r.sameRows()
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
	given   []int // for each input, the last instance that gave it, counted from 1
}

// sameRows sets the number of rows, which every input must have.
func (r *requestReader) sameRows() error {
	for i := range r.request.In {
		n := int(r.request.In[i].Dims[0])
		if i > 0 && n != r.request.Rows {
			return status.Errorf(status.InvalidArgument, "inputs %q and %q have %d and %d rows; they must have the same",
				r.s.Inputs[0].Alias, r.s.Inputs[i].Alias, r.request.Rows, n)
		}
		r.request.Rows = n
	}
	if r.request.Rows == 0 {
		return status.Errorf(status.InvalidArgument, "the request has no rows; input %q wants shape %s", r.s.Inputs[0].Alias, r.s.Inputs[0].Shape())
	}
	return nil
}

// instances reads {"instances": [...]}: a list of values of the only input, or of objects with every input by name.
func (r *requestReader) instances(span Span) error {
	body := r.body
	if body[span.Start] != '[' {
		return status.Errorf(status.InvalidArgument, "JSON Value: %s Excepting 'instances' to be an list/array", Quote(body))
	}
	at, more := first(body, span.Start)
	if !more {
		return status.Errorf(status.InvalidArgument, "JSON Value: %s No values in 'instances' array", Quote(body))
	}
	named := body[at] == '{' && !isBase64(body, at)
	if body[at] != '{' && len(r.s.Inputs) > 1 {
		return status.Errorf(status.InvalidArgument,
			"instances is a plain list, but expecting list of objects as multiple input tensors required as per tensorinfo_map")
	}
	if named {
		r.given = make([]int, len(r.s.Inputs))
	}
	total := count(body, span.Start)
	r.request.Rows = 1
	for item := 0; more; item++ {
		end := skip(body, at)
		if err := r.instance(Span{at, end}, item, total, named); err != nil {
			return err
		}
		at, more = next(body, end)
	}
	return nil
}

func (r *requestReader) instance(span Span, item, total int, named bool) error {
	object := r.body[span.Start] == '{' && !isBase64(r.body, span.Start)
	switch {
	case named && !object:
		return status.Errorf(status.InvalidArgument, "Expecting object but got list at item %d of input list", item)
	case !named && object:
		return status.Errorf(status.InvalidArgument, "Expecting value/list but got object at item %d of input list", item)
	case !named:
		if err := r.cell(0, span, item, total); err != nil {
			return status.Errorf(status.InvalidArgument, "Failed to process element: %d of 'instances' list. Error: INVALID_ARGUMENT: %s", item, err)
		}
		return nil
	}
	var failure error
	seen := 0
	each(r.body, span.Start, func(key string, value Span) bool {
		input := r.s.Input(key)
		if input < 0 {
			failure = status.Errorf(status.InvalidArgument,
				"Failed to process element: %d key: %s of 'instances' list. Error: INVALID_ARGUMENT: JSON object: does not have named input: %s",
				item, key, key)
			return false
		}
		if r.given[input] != item+1 { // a repeated key counts once; its last value stays
			r.given[input] = item + 1
			seen++
		}
		if err := r.cell(input, value, item, total); err != nil {
			failure = status.Errorf(status.InvalidArgument,
				"Failed to process element: %d key: %s of 'instances' list. Error: INVALID_ARGUMENT: %s", item, key, err)
		}
		return failure == nil
	})
	if failure == nil && seen != len(r.s.Inputs) {
		failure = status.Errorf(status.InvalidArgument,
			"Failed to process element: %d of 'instances' list. JSON object: %s keys must be equal to: %s",
			item, Quote(r.body[span.Start:span.End]), r.names())
	}
	return failure
}

func (r *requestReader) names() string {
	var all []string
	for i := range r.s.Inputs {
		all = append(all, r.s.Inputs[i].Alias)
	}
	return strings.Join(all, ",")
}

// cell writes one instance of one input. The first instance decides the shape that all must have.
func (r *requestReader) cell(input int, span Span, item, total int) error {
	info := &r.s.Inputs[input]
	value := &r.request.In[input]
	if item == 0 || value.Slab == nil {
		var free [8]int64
		var dims []int64
		if info.Known && len(info.Dims) > 0 {
			dims = append(append(free[:0], int64(total)), info.Dims[1:]...)
		} else {
			dims = append(free[:0], int64(total))
		}
		inner := Shape(r.body, span, slices.Clone(dims[1:]), info.Known)
		if err := r.make(input, info, append(dims[:1], inner...)); err != nil {
			return err
		}
	}
	dims := value.Dims[1:]
	if err := Fill(r.body, span, value, item*int(tensor.Elements(dims)), dims); err != nil {
		return r.explain(info, err)
	}
	return nil
}

// columns reads {"inputs": ...}: the only input's value, or an object with every input by name.
func (r *requestReader) columns(span Span) error {
	r.request.Rows = 1
	object := r.body[span.Start] == '{' && !isBase64(r.body, span.Start)
	if !object {
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
	if err := r.make(input, info, dims); err != nil {
		return err
	}
	if err := Fill(r.body, span, &r.request.In[input], 0, dims); err != nil {
		return r.explain(info, err)
	}
	return nil
}

func (r *requestReader) make(input int, info *model.TensorInfo, dims []int64) error {
	size := int64(info.Type.Size())
	for _, dim := range dims {
		// Every element takes at least two bytes of JSON ("1,"), so a larger tensor cannot be filled by this body.
		if size *= max(dim, 1); size > 8*int64(len(r.body))+1<<16 {
			return status.Errorf(status.InvalidArgument, "input %q has shape %s; the request has not that many values", info.Alias, info.Shape())
		}
	}
	_, err := r.request.SetInput(input, r.pool, info.Type, dims...)
	if err != nil {
		return status.Errorf(status.ResourceExhausted, "%v", err)
	}
	return nil
}

// explain adds which input the refusal is about and what it should have been.
func (r *requestReader) explain(info *model.TensorInfo, err error) error {
	return status.Errorf(status.InvalidArgument, "%s (input %q is %v %s)", err, info.Alias, info.Type, info.Shape())
}
