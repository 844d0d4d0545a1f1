package oip

import (
	"encoding/binary"
	"math"

	"sluicegate/go_infer/internal/grpcserver/wire"
	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/tensor"
)

// stringCost is what one element of a BYTES tensor costs beside its bytes: the slice that says where they are.
const stringCost = 24

// elements is the product of the shape, within limit bytes of memory.
func (in *input) elements(info *model.TensorInfo, limit int) (int, error) {
	size := info.Type.Size()
	if size == 0 {
		size = stringCost
	}
	n, empty := int64(1), false
	for _, dim := range in.dims {
		switch {
		case dim < 0:
			return 0, refuse("shape %s of input '%s' has a negative dimension", tensor.ShapeText(in.dims, true), in.name)
		case dim == 0:
			empty = true
		case n > math.MaxInt64/dim || n*dim > int64(limit/size):
			return 0, refuse("shape %s of input '%s' is of more than the %d bytes that one tensor may have",
				tensor.ShapeText(in.dims, true), in.name, limit)
		default:
			n *= dim
		}
	}
	if empty {
		n = 0
	}
	return int(n), nil
}

// contents is where the elements of an input are.
type contents interface {
	numbers(in *input, servable *model.Servable, info *model.TensorInfo, memory []byte) error
	strings(in *input, n int) ([][]byte, error)
}

func (in *input) fill(from contents, servable *model.Servable, at, elements int, request *model.Request) error {
	info := &servable.Inputs[at]
	if info.Type == tensor.String {
		strings, err := from.strings(in, elements)
		if err != nil {
			return err
		}
		return request.SetStrings(at, strings, in.dims...)
	}
	value, err := request.SetInput(at, servable.Model.Pool(), info.Type, in.dims...)
	if err != nil {
		return exhausted(err)
	}
	return from.numbers(in, servable, info, value.Bytes())
}

// rawContents is one of raw_input_contents: the elements as they are in memory; each BYTES element after its 4-byte length.
type rawContents struct{ wire.Reader }

func (c rawContents) numbers(in *input, servable *model.Servable, info *model.TensorInfo, memory []byte) error {
	if n := c.Len(); n != len(memory) {
		return refuse("input byte size mismatch for input '%s' for model '%s'. Expected %d, got %d", in.name, servable.Model.Name, len(memory), n)
	}
	c.CopyTo(memory)
	if info.Type == tensor.Bool {
		for i, b := range memory {
			if b > 1 {
				return refuse("input '%s' is BOOL; its byte %d is %d, which is neither 0 nor 1", in.name, i, b)
			}
		}
	}
	return c.Err()
}

func (c rawContents) strings(in *input, n int) ([][]byte, error) {
	const prefix = 4
	if n > c.Len()/prefix {
		return nil, refuse("input '%s' has shape %s; %d bytes cannot hold that many lengths", in.name, tensor.ShapeText(in.dims, true), c.Len())
	}
	all, arena := make([][]byte, n), make([]byte, c.Len())
	c.CopyTo(arena)
	for i := range all {
		if len(arena) < prefix {
			return nil, refuse("unexpected number of string elements %d for inference input '%s', expecting %d", i, in.name, n)
		}
		length := uint64(binary.LittleEndian.Uint32(arena))
		arena = arena[prefix:]
		if length > uint64(len(arena)) {
			return nil, refuse("element %d of BYTES input '%s' is longer than what is left of its bytes", i, in.name)
		}
		all[i], arena = arena[:length:length], arena[length:]
	}
	if len(arena) > 0 {
		return nil, refuse("unexpected number of string elements for input '%s': more than the %d of its shape", in.name, n)
	}
	return all, nil
}

// typedContents is InferTensorContents: bool 1, int 2, int64 3, uint 4, uint64 5, fp32 6, fp64 7, bytes 8.
type typedContents struct{ wire.Reader }

var typedFields = map[tensor.DType]wire.Repeated{
	tensor.Bool:    {Field: 1, Size: 1, Bool: true},
	tensor.Int8:    {Field: 2, Size: 1},
	tensor.Int16:   {Field: 2, Size: 2},
	tensor.Int32:   {Field: 2, Size: 4},
	tensor.Int64:   {Field: 3, Size: 8},
	tensor.Uint8:   {Field: 4, Size: 1},
	tensor.Uint16:  {Field: 4, Size: 2},
	tensor.Uint32:  {Field: 4, Size: 4},
	tensor.Uint64:  {Field: 5, Size: 8},
	tensor.Float32: {Field: 6, Kind: wire.Fixed32, Size: 4},
	tensor.Float64: {Field: 7, Kind: wire.Fixed64, Size: 8},
}

func (c typedContents) numbers(in *input, servable *model.Servable, info *model.TensorInfo, memory []byte) error {
	field, known := typedFields[info.Type]
	if !known {
		return refuse("input '%s' is %s, which has no typed contents; send it in raw_input_contents", in.name, in.datatype)
	}
	_, values, err := field.Read(c.Reader, memory)
	if err != nil {
		return refuse("contents of input '%s' cannot be parsed: %v", in.name, err)
	}
	if expected := len(memory) / field.Size; values != expected {
		return refuse("unexpected number of elements %d for input '%s' for model '%s', expecting %d", values, in.name, servable.Model.Name, expected)
	}
	return nil
}

func (c typedContents) strings(in *input, n int) ([][]byte, error) {
	all := make([][]byte, 0, min(n, c.Len()))
	arena := make([]byte, c.Len())
	message := c.Reader
	for field, kind := message.Next(); field != 0; field, kind = message.Next() {
		if field != 8 || kind != wire.Bytes {
			message.Skip(kind)
			continue
		}
		text := message.Message()
		size := text.Len()
		text.CopyTo(arena[:size])
		all, arena = append(all, arena[:size:size]), arena[size:]
	}
	if err := message.Err(); err != nil {
		return nil, refuse("contents of input '%s' cannot be parsed: %v", in.name, err)
	}
	if len(all) != n {
		return nil, refuse("unexpected number of string elements %d for inference input '%s', expecting %d", len(all), in.name, n)
	}
	return all, nil
}
