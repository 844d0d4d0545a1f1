package oip

import (
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"

	"sluicegate/go_infer/internal/grpcserver/rpc"
	"sluicegate/go_infer/internal/grpcserver/wire"
	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/rawtensor"
	"sluicegate/go_infer/internal/triton"
)

// finalParameter is the entry of the parameters that says that no further answer comes: {"triton_final_response": bool_param true}.
var finalParameter = func() []byte {
	entry := protowire.AppendString([]byte{1<<3 | 2}, "triton_final_response")
	return protowire.AppendBytes(append(entry, 2<<3|2), []byte{1 << 3, 1})
}()

// answer writes ModelInferResponse: model_name 1, model_version 2, id 3, parameters 4, outputs 5, raw_output_contents 6. In a stream it
// is infer_response (2) of a ModelStreamInferResponse.
func (q *inferRequest) answer(servable *model.Servable, streamed bool) (*rpc.Message, error) {
	var digits [20]byte
	version := strconv.AppendInt(digits[:0], servable.Model.Version, 10)
	size := field(len(servable.Model.Name)) + field(len(version))
	if len(q.id) > 0 {
		size += field(len(q.id))
	}
	final := q.final && streamed
	if final {
		size += field(len(finalParameter))
	}
	for i := range q.outputs {
		out := &q.outputs[i]
		size += field(tensorSize(servable, out)) + field(rawtensor.Size(&out.value))
	}
	total := size
	if streamed {
		total = field(size)
	}
	return rpc.Answer(total, func(b []byte) []byte {
		if streamed {
			b = open(b, 2, size)
		}
		b = append(open(b, 1, len(servable.Model.Name)), servable.Model.Name...)
		b = append(open(b, 2, len(version)), version...)
		if len(q.id) > 0 {
			b = append(open(b, 3, len(q.id)), q.id...)
		}
		if final {
			b = append(open(b, 4, len(finalParameter)), finalParameter...)
		}
		for i := range q.outputs {
			out := &q.outputs[i]
			b = appendTensor(open(b, 5, tensorSize(servable, out)), servable, out)
		}
		for i := range q.outputs {
			value := &q.outputs[i].value
			b = rawtensor.Append(open(b, 6, rawtensor.Size(value)), value)
		}
		return b
	})
}

// tensorSize is the bytes of an InferOutputTensor: name 1, datatype 2, shape 3.
func tensorSize(servable *model.Servable, out *output) int {
	return field(len(servable.Outputs[out.at].Alias)) + field(len(triton.Datatypes[out.value.Type])) + field(shapeSize(out.value.Dims))
}

func appendTensor(b []byte, servable *model.Servable, out *output) []byte {
	alias, datatype := servable.Outputs[out.at].Alias, triton.Datatypes[out.value.Type]
	b = append(open(b, 1, len(alias)), alias...)
	b = append(open(b, 2, len(datatype)), datatype...)
	b = open(b, 3, shapeSize(out.value.Dims))
	for _, dim := range out.value.Dims {
		b = protowire.AppendVarint(b, uint64(dim))
	}
	return b
}

func shapeSize(dims []int64) (size int) {
	for _, dim := range dims {
		size += protowire.SizeVarint(uint64(dim))
	}
	return size
}

// field is the bytes of a length-delimited field of a number below 16 that holds n bytes.
func field(n int) int { return 1 + protowire.SizeVarint(uint64(n)) + n }

// open begins such a field.
func open(b []byte, number byte, n int) []byte {
	return protowire.AppendVarint(append(b, number<<3|byte(wire.Bytes)), uint64(n))
}
