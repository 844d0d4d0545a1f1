package oip

import (
	"encoding/binary"
	"math"

	"sluicegate/go_infer/internal/jsontensor"
	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/session"
	"sluicegate/go_infer/internal/tensor"
)

// BYTES elements, in binary data, are a length (4 bytes, little-endian) and as many bytes each. They are read into Go memory of their
// own, because a Run may still need them when the client, and with it the pooled body, is gone.

func (f *inference) readStrings(input int, dims []int64, data jsontensor.Span, size int64) error {
	info := &f.signature.Inputs[input]
	var elements [][]byte
	var err error
	if data.Found() {
		elements, err = f.jsonStrings(info, dims, data)
	} else {
		elements, err = f.binaryStrings(info, dims, size)
	}
	if err != nil {
		return err
	}
	return f.request.SetStrings(input, elements, dims...)
}

func (f *inference) binaryStrings(info *model.TensorInfo, dims []int64, size int64) ([][]byte, error) {
	if err := f.enough(info, size); err != nil {
		return nil, err
	}
	n := count(dims, math.MaxInt32)
	if 4*n > size {
		return nil, refuse("input '%s' has shape %s; %d bytes cannot hold that many lengths", info.Alias, tensor.ShapeText(dims, true), size)
	}
	memory := make([]byte, size)
	if err := f.x.Take(memory); err != nil {
		return nil, err
	}
	elements := make([][]byte, 0, n)
	for rest := memory; len(rest) > 0; {
		if len(rest) < 4 || uint64(binary.LittleEndian.Uint32(rest)) > uint64(len(rest)-4) {
			return nil, refuse("element %d of BYTES input '%s' is longer than what is left of its %d bytes", len(elements), info.Alias, size)
		}
		end := 4 + int(binary.LittleEndian.Uint32(rest))
		if len(elements) == int(n) {
			return nil, refuse("unexpected number of string elements for input '%s': more than the %d of its shape", info.Alias, n)
		}
		elements = append(elements, rest[4:end:end])
		rest = rest[end:]
	}
	if len(elements) != int(n) {
		return nil, refuse("unexpected number of string elements %d for inference input '%s', expecting %d", len(elements), info.Alias, n)
	}
	return elements, nil
}

// jsonStrings reads "data", flat or nested like the shape.
func (f *inference) jsonStrings(info *model.TensorInfo, dims []int64, data jsontensor.Span) ([][]byte, error) {
	n := count(dims, int64(len(f.body)))
	if n > int64(len(f.body)) {
		return nil, refuse("input '%s' has shape %s; the request has not that many values", info.Alias, tensor.ShapeText(dims, true))
	}
	if f.body[data.Start] != '[' {
		return nil, refuse("Unable to parse 'data': it must be an array (input '%s')", info.Alias)
	}
	if flat := [1]int64{n}; !f.nested(data) {
		dims = flat[:]
	}
	elements := make([][]byte, 0, n)
	var walk func(span jsontensor.Span, dims []int64) error
	walk = func(span jsontensor.Span, dims []int64) error {
		if len(dims) == 0 {
			text, ok := jsontensor.Text(f.body, span)
			if !ok {
				return refuse("%s is not a string (input '%s' is BYTES)", jsontensor.Quote(f.body[span.Start:span.End]), info.Alias)
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
			return refuse("'data' at offset %d is not a list of %d (input '%s')", span.Start, dims[0], info.Alias)
		}
		return nil
	}
	return elements, walk(data, dims)
}

// rawString reads a body without JSON as one element.
func (f *inference) rawString(info *model.TensorInfo, size int64) error {
	var room [session.MaxRank]int64
	dims := append(room[:0], info.Dims...)
	for i, dim := range dims {
		if dim > 1 || dim == 0 {
			return refuse("input '%s' is BYTES %s: a raw request is one element; send a JSON header (%s)", info.Alias, info.Shape(), headLength)
		}
		dims[i] = 1
	}
	memory := make([]byte, size)
	if err := f.x.Take(memory); err != nil {
		return err
	}
	return f.request.SetStrings(0, [][]byte{memory}, dims...)
}
