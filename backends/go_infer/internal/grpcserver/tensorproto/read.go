// Package tensorproto moves tensors between tensorflow.TensorProto on the wire and the memory that TensorFlow reads.
//
// Contract: what TensorFlow's Tensor::FromProto accepts is accepted: tensor_content, or the typed fields with the rule that the last
// value is repeated up to the shape (none at all is zeros) and values beyond it are ignored; packed or not. The bytes of
// tensor_content are copied once, from the buffers they were received in to the tensor. Answers are written as TensorFlow Serving
// writes them.
//
// Source: tensorflow/core/framework/tensor.proto and tensor.cc.
package tensorproto

import (
	"fmt"
	"math"

	"sluicegate/go_infer/internal/grpcserver/wire"
	"sluicegate/go_infer/internal/tensor"
)

// Fields of TensorProto.
const (
	dtypeField   = 1
	shapeField   = 2
	contentField = 4
	stringField  = 8
)

// stringCost is what one element of a string tensor costs beside its bytes: the slice that says where they are.
const stringCost = 24

// form is how the elements of a type travel in their typed field.
type form struct {
	wire.Repeated
	sign bool // a varint is sign-extended to 64 bits
}

// forms are the typed fields: float_val 5, double_val 6, int_val 7, int64_val 10, bool_val 11, half_val 13, uint32_val 16,
// uint64_val 17.
var forms = map[tensor.DType]form{
	tensor.Float32:  {wire.Repeated{Field: 5, Kind: wire.Fixed32, Size: 4}, false},
	tensor.Float64:  {wire.Repeated{Field: 6, Kind: wire.Fixed64, Size: 8}, false},
	tensor.Int32:    {wire.Repeated{Field: 7, Size: 4}, true},
	tensor.Int16:    {wire.Repeated{Field: 7, Size: 2}, true},
	tensor.Int8:     {wire.Repeated{Field: 7, Size: 1}, true},
	tensor.Uint16:   {wire.Repeated{Field: 7, Size: 2}, false},
	tensor.Uint8:    {wire.Repeated{Field: 7, Size: 1}, false},
	tensor.Int64:    {wire.Repeated{Field: 10, Size: 8}, true},
	tensor.Bool:     {wire.Repeated{Field: 11, Size: 1, Bool: true}, false},
	tensor.Half:     {wire.Repeated{Field: 13, Size: 2}, false},
	tensor.BFloat16: {wire.Repeated{Field: 13, Size: 2}, false},
	tensor.Uint32:   {wire.Repeated{Field: 16, Size: 4}, false},
	tensor.Uint64:   {wire.Repeated{Field: 17, Size: 8}, false},
}

// Proto is a TensorProto whose type and shape were read and whose elements were not yet.
type Proto struct {
	Type     tensor.DType
	Dims     []int64
	Elements int // the product of Dims

	message wire.Reader
	content wire.Reader
}

// Read reads type and shape into p, whose Dims are reused. Of the elements no more may be asked for than fit into limit bytes: a few
// bytes of message can name a shape of any size.
func (p *Proto) Read(message wire.Reader, limit int) error {
	*p = Proto{Dims: p.Dims[:0], message: message}
	known := true
	for field, kind := message.Next(); field != 0; field, kind = message.Next() {
		switch {
		case field == dtypeField && kind == wire.Varint:
			p.Type = tensor.DType(message.Varint())
		case field == shapeField && kind == wire.Bytes:
			if err := p.shape(message.Message(), &known); err != nil {
				return err
			}
		case field == contentField && kind == wire.Bytes:
			p.content = message.Message()
		default:
			message.Skip(kind)
		}
	}
	if err := message.Err(); err != nil {
		return err
	}
	return p.count(known, limit)
}

// shape reads TensorShapeProto: dim 2 {size 1}, unknown_rank 3.
func (p *Proto) shape(message wire.Reader, known *bool) error {
	for field, kind := message.Next(); field != 0; field, kind = message.Next() {
		switch {
		case field == 2 && kind == wire.Bytes:
			size := int64(0)
			dim := message.Message()
			for field, kind := dim.Next(); field != 0; field, kind = dim.Next() {
				if field == 1 && kind == wire.Varint {
					size = int64(dim.Varint())
				} else {
					dim.Skip(kind)
				}
			}
			if err := dim.Err(); err != nil {
				return err
			}
			p.Dims = append(p.Dims, size)
		case field == 3 && kind == wire.Varint:
			*known = message.Varint() == 0
		default:
			message.Skip(kind)
		}
	}
	return message.Err()
}

func (p *Proto) count(known bool, limit int) error {
	if !known {
		return fmt.Errorf("its rank is unknown; send a shape")
	}
	size := p.Type.Size()
	if p.Type == tensor.String {
		size = stringCost
	}
	if size == 0 {
		return fmt.Errorf("tensors of type %v are not served", p.Type)
	}
	elements, empty := int64(1), false
	for _, dim := range p.Dims {
		switch {
		case dim < 0:
			return fmt.Errorf("shape %s has a negative dimension", tensor.ShapeText(p.Dims, true))
		case dim == 0:
			empty = true
		case elements > math.MaxInt64/dim || elements*dim > int64(limit/size):
			return fmt.Errorf("shape %s is of more than the %d bytes that one tensor may have", tensor.ShapeText(p.Dims, true), limit)
		default:
			elements *= dim
		}
	}
	if empty {
		elements = 0
	}
	p.Elements = int(elements)
	return nil
}

// Fill writes the elements, which are not strings, to memory of exactly their size.
func (p *Proto) Fill(memory []byte) error {
	if n := p.content.Len(); n > 0 {
		if n != len(memory) {
			return fmt.Errorf("tensor_content has %d bytes; shape %s of %v takes %d", n, tensor.ShapeText(p.Dims, true), p.Type, len(memory))
		}
		p.content.CopyTo(memory)
		if p.Type == tensor.Bool {
			for i, b := range memory { // C allows no other
				memory[i] = min(b, 1)
			}
		}
		return p.content.Err()
	}
	filled, _, err := forms[p.Type].Read(p.message, memory)
	repeat(memory, filled, p.Type.Size())
	return err
}

// repeat fills memory from at on with its last element; with zeros if there is none.
func repeat(memory []byte, at, size int) {
	if at == 0 {
		clear(memory)
		return
	}
	last := memory[at-size : at]
	for filled := memory[at:]; len(filled) > 0; {
		n := copy(filled, last)
		filled = filled[n:]
	}
}

// Strings are the elements of a string tensor, in memory of their own.
func (p *Proto) Strings() ([][]byte, error) {
	if p.content.Len() > 0 {
		return p.stringContent()
	}
	total := 0
	message := p.message
	if err := p.eachString(message, func(text wire.Reader) { total += text.Len() }); err != nil {
		return nil, err
	}
	all, arena := make([][]byte, 0, p.Elements), make([]byte, total)
	err := p.eachString(message, func(text wire.Reader) {
		n := text.Len()
		text.CopyTo(arena[:n])
		all, arena = append(all, arena[:n:n]), arena[n:]
	})
	var last []byte
	if len(all) > 0 {
		last = all[len(all)-1]
	}
	for len(all) < p.Elements {
		all = append(all, last)
	}
	return all, err
}

func (p *Proto) eachString(message wire.Reader, visit func(wire.Reader)) error {
	seen := 0
	for field, kind := message.Next(); field != 0; field, kind = message.Next() {
		if field != stringField || kind != wire.Bytes {
			message.Skip(kind)
			continue
		}
		text := message.Message()
		if seen++; seen <= p.Elements {
			visit(text)
		}
	}
	return message.Err()
}

// stringContent reads strings from tensor_content: all lengths as varints, then all bytes (tensorflow/core/platform/tensor_coding.cc).
func (p *Proto) stringContent() ([][]byte, error) {
	if p.Elements > p.content.Len() {
		return nil, fmt.Errorf("tensor_content has %d bytes; shape %s of string takes more", p.content.Len(), tensor.ShapeText(p.Dims, true))
	}
	r := p.content
	lengths, total := make([]int, p.Elements), uint64(0)
	for i := range lengths {
		length := r.Varint()
		if total += length; length > uint64(r.Len()) || total > uint64(r.Len()) {
			return nil, wire.ErrMalformed
		}
		lengths[i] = int(length)
	}
	if err := r.Err(); err != nil {
		return nil, err
	}
	if total != uint64(r.Len()) {
		return nil, fmt.Errorf("tensor_content has %d bytes of strings; their lengths say %d", r.Len(), total)
	}
	all, arena := make([][]byte, len(lengths)), make([]byte, total)
	for i, n := range lengths {
		r.CopyTo(arena[:n])
		all[i], arena = arena[:n:n], arena[n:]
	}
	return all, r.Err()
}
