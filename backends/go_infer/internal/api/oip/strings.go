package oip

import (
	"io"

	"sluicegate/go_infer/internal/jsontensor"
	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/session"
	"sluicegate/go_infer/internal/triton"
)

// readStrings reads "data" of type BYTES, whose strings are as many as n. They become Go memory of their own, because a Run may still
// need them when the client, and with it the pooled body, is gone.
func (f *inference) readStrings(input int, dims, layout []int64, n int64, data jsontensor.Span) error {
	info := &f.signature.Inputs[input]
	elements := make([][]byte, 0, n)
	var walk func(span jsontensor.Span, dims []int64) error
	walk = func(span jsontensor.Span, dims []int64) error {
		if len(dims) == 0 {
			text, ok := jsontensor.Text(f.body, span)
			if !ok {
				return triton.Refuse("%s is not a string (input '%s' is BYTES)", jsontensor.Quote(f.body[span.Start:span.End]), info.Alias)
			}
			elements = append(elements, []byte(text))
			return nil
		}
		list, ok := jsontensor.Elements(f.body, span)
		length := int64(0)
		for item, more := list.Next(); more; item, more = list.Next() {
			if length++; length > dims[0] {
				break
			}
			if err := walk(item, dims[1:]); err != nil {
				return err
			}
		}
		if !ok || length != dims[0] {
			return triton.Refuse("'data' at offset %d is not a list of %d (input '%s')", span.Start, dims[0], info.Alias)
		}
		return nil
	}
	if err := walk(data, layout); err != nil {
		return err
	}
	return f.request.SetStrings(input, elements, dims...)
}

// rawString reads a body without JSON as one element.
func (f *inference) rawString(info *model.TensorInfo, size int64) error {
	var room [session.MaxRank]int64
	dims := append(room[:0], info.Dims...)
	for i, dim := range dims {
		if dim > 1 || dim == 0 {
			return triton.Refuse("input '%s' is BYTES %s: a raw request is one element; send a JSON header (%s)", info.Alias, info.Shape(), headLength)
		}
		dims[i] = 1
	}
	memory := make([]byte, size)
	if _, err := io.ReadFull(f.x, memory); err != nil {
		return err
	}
	return f.request.SetStrings(0, [][]byte{memory}, dims...)
}
