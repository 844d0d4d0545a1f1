package tensorproto

import (
	"google.golang.org/protobuf/encoding/protowire"

	"sluicegate/go_infer/internal/grpcserver/wire"
	"sluicegate/go_infer/internal/tensor"
)

// Writer writes tensors. The zero value writes the typed fields (float_val, ...), as TensorFlow Serving does unless told otherwise.
type Writer struct {
	Content bool // write tensor_content (--enable_serialization_as_tensor_content)
}

// Size is the bytes that Append will add.
func (w Writer) Size(v *tensor.Value) int {
	size := 1 + protowire.SizeVarint(uint64(v.Type)) + sized(1, shapeSize(v.Dims))
	run := w.runSize(v)
	switch {
	case v.Type == tensor.String && !w.Content:
		for _, text := range v.Strings {
			size += sized(1, len(text))
		}
	case run > 0:
		size += sized(protowire.SizeTag(protowire.Number(w.field(v))), run)
	}
	return size
}

// Append appends the value as a TensorProto.
func (w Writer) Append(b []byte, v *tensor.Value) []byte {
	b = protowire.AppendVarint(append(b, dtypeField<<3), uint64(v.Type))
	b = protowire.AppendVarint(append(b, shapeField<<3|byte(wire.Bytes)), uint64(shapeSize(v.Dims)))
	for _, dim := range v.Dims {
		b = protowire.AppendVarint(append(b, 2<<3|byte(wire.Bytes)), uint64(dimSize(dim)))
		if dim != 0 {
			b = protowire.AppendVarint(append(b, 1<<3), uint64(dim))
		}
	}
	if v.Type == tensor.String && !w.Content {
		for _, text := range v.Strings {
			b = protowire.AppendBytes(append(b, stringField<<3|byte(wire.Bytes)), text)
		}
		return b
	}
	run := w.runSize(v)
	if run == 0 {
		return b
	}
	b = protowire.AppendTag(b, protowire.Number(w.field(v)), protowire.BytesType)
	return w.appendRun(protowire.AppendVarint(b, uint64(run)), v)
}

func (w Writer) field(v *tensor.Value) int {
	if w.Content {
		return contentField
	}
	return forms[v.Type].Field
}

// sized is the bytes of a length-delimited field: its tag, its length, and what it holds.
func sized(tag, n int) int { return tag + protowire.SizeVarint(uint64(n)) + n }

func dimSize(dim int64) int {
	if dim == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(uint64(dim))
}

func shapeSize(dims []int64) (size int) {
	for _, dim := range dims {
		size += sized(1, dimSize(dim))
	}
	return size
}

// runSize is the bytes of the elements: of tensor_content, or of the packed typed field.
func (w Writer) runSize(v *tensor.Value) (size int) {
	if v.Type == tensor.String {
		for _, text := range v.Strings {
			size += protowire.SizeVarint(uint64(len(text))) + len(text)
		}
		return size
	}
	if form := forms[v.Type]; !w.Content && form.Kind == wire.Varint {
		each(v, form.sign, func(value uint64) { size += protowire.SizeVarint(value) })
		return size
	}
	return v.Size()
}

func (w Writer) appendRun(b []byte, v *tensor.Value) []byte {
	if v.Type == tensor.String {
		for _, text := range v.Strings {
			b = protowire.AppendVarint(b, uint64(len(text)))
		}
		for _, text := range v.Strings {
			b = append(b, text...)
		}
		return b
	}
	if form := forms[v.Type]; !w.Content && form.Kind == wire.Varint {
		each(v, form.sign, func(value uint64) { b = protowire.AppendVarint(b, value) })
		return b
	}
	return append(b, v.Bytes()...)
}

// each visits the elements as the 64 bits of their varints.
func each(v *tensor.Value, sign bool, visit func(uint64)) {
	memory := v.Bytes()
	switch size := v.Type.Size(); {
	case size == 1 && sign:
		varints[int8](memory, visit)
	case size == 1:
		varints[uint8](memory, visit)
	case size == 2 && sign:
		varints[int16](memory, visit)
	case size == 2:
		varints[uint16](memory, visit)
	case size == 4 && sign:
		varints[int32](memory, visit)
	case size == 4:
		varints[uint32](memory, visit)
	default:
		varints[uint64](memory, visit)
	}
}

func varints[T int8 | uint8 | int16 | uint16 | int32 | uint32 | uint64](memory []byte, visit func(uint64)) {
	for _, value := range tensor.Cast[T](memory) {
		visit(uint64(int64(value)))
	}
}
