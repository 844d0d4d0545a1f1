package oip

import (
	"sluicegate/go_infer/internal/grpcserver/wire"
	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/tensor"
	"sluicegate/go_infer/internal/triton"
)

// stringCost is what one element of a BYTES tensor costs beside its bytes: the slice that says where they are.
const stringCost = 24

// fill copies an input's typed contents, InferTensorContents, of at most limit bytes of memory, to where TensorFlow reads them. Its shape is good.
func (in *input) fill(servable *model.Servable, at int, request *model.Request, limit int) error {
	info := &servable.Inputs[at]
	size := max(info.Type.Size(), 1)
	if info.Type == tensor.String {
		size = stringCost
	}
	elements := tensor.Elements(in.dims)
	if elements > int64(limit/size) {
		return triton.Refuse("shape %s of input '%s' is of more than the %d bytes that one tensor may have", tensor.ShapeText(in.dims, true), in.name, limit)
	}
	if info.Type == tensor.String {
		return in.strings(request, at, int(elements))
	}
	field, known := typedFields[info.Type]
	if !known {
		return triton.Refuse("input '%s' is %s, which has no typed contents; send it in raw_input_contents", in.name, in.datatype)
	}
	value, err := request.SetInput(at, servable.Model.Pool(), info.Type, in.dims...)
	if err != nil {
		return status.Errorf(status.ResourceExhausted, "%v", err)
	}
	_, values, err := field.Read(in.contents, value.Bytes())
	if err != nil {
		return triton.Refuse("contents of input '%s' cannot be parsed: %v", in.name, err)
	}
	if values != int(elements) {
		return triton.Refuse("unexpected number of elements %d for input '%s' for model '%s', expecting %d", values, in.name, servable.Model.Name, elements)
	}
	return nil
}

// typedFields are the fields of InferTensorContents: bool 1, int 2, int64 3, uint 4, uint64 5, fp32 6, fp64 7; bytes are 8.
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

func (in *input) strings(request *model.Request, at, n int) error {
	message := in.contents
	all := make([][]byte, 0, min(n, message.Len()))
	arena := make([]byte, message.Len())
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
		return triton.Refuse("contents of input '%s' cannot be parsed: %v", in.name, err)
	}
	if len(all) != n {
		return triton.Refuse("unexpected number of string elements %d for inference input '%s', expecting %d", len(all), in.name, n)
	}
	return request.SetStrings(at, all, in.dims...)
}
