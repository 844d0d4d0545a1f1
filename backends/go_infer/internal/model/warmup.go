package model

import (
	"encoding/binary"
	"fmt"
	"math"

	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/savedmodel"
	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/tensor"
	"sluicegate/go_infer/internal/wire"
)

// replay runs the requests that were recorded for warming (savedmodel.WarmupFile), in every Run slot; those that change state once, and not
// again. One that fails is an error.
func (m *Model) replay(directory string, again bool) error {
	return savedmodel.Warmups(directory, func(w savedmodel.Warmup) error {
		servable, err := m.Signature(w.Signature)
		if err != nil {
			return err
		}
		if again && servable.Changes != "" {
			return nil
		}
		for slot := range servable.runner.slots {
			if slot > 0 && servable.Changes != "" {
				break
			}
			if err := m.replayOne(servable, slot, w); err != nil {
				return err
			}
		}
		return nil
	})
}

func (m *Model) replayOne(s *Servable, slot int, w savedmodel.Warmup) error {
	request, err := s.warmup(w, m.pool)
	if err != nil {
		return err
	}
	defer request.Release()
	return s.runner.run(slot, []batch.Part[*Request]{{Payload: request, Rows: request.Rows}})
}

// scalars says in which field of TensorProto a type's numbers are, and how they are written there.
var scalars = map[tensor.DType]struct {
	field int
	width int // of a number on the wire; 0: a varint
}{
	tensor.Half: {13, 0}, tensor.BFloat16: {13, 0}, tensor.Float32: {5, 4}, tensor.Float64: {6, 8}, tensor.Int32: {7, 0}, tensor.Uint8: {7, 0},
	tensor.Int16: {7, 0}, tensor.Int8: {7, 0}, tensor.Uint16: {7, 0}, tensor.Int64: {10, 0}, tensor.Bool: {11, 0}, tensor.Uint32: {16, 0},
	tensor.Uint64: {17, 0},
}

// readTensor reads TensorProto (dtype 1, tensor_shape 2, tensor_content 4, string_val 8, numbers by type) into input i. As TensorFlow
// does, it takes the last number again for those that are left out.
func readTensor(proto []byte, request *Request, i int, info *TensorInfo, pool *tensor.Pool) error {
	var shape TensorInfo
	var content, numbers []byte
	var singles []uint64
	var strings [][]byte
	dtype := tensor.DType(0)
	err := wire.Fields(proto, func(number int, value uint64, bytes []byte) error {
		switch number {
		case 1:
			dtype = tensor.DType(value)
		case 2:
			return shape.parseShape(bytes)
		case 4:
			content = bytes
		case 8:
			strings = append(strings, bytes)
		default:
			if number == scalars[info.Type].field {
				numbers = append(numbers, bytes...)
				if bytes == nil {
					singles = append(singles, value)
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if dtype != info.Type {
		return status.Errorf(status.InvalidArgument, "input %q is %v; the signature wants %v", info.Alias, dtype, info.Type)
	}
	elements := tensor.Elements(shape.Dims)
	if elements < 0 || elements > math.MaxInt32 {
		return status.Errorf(status.InvalidArgument, "input %q has the shape %s", info.Alias, tensor.ShapeText(shape.Dims, true))
	}
	if dtype == tensor.String {
		return request.SetStrings(i, strings, shape.Dims...)
	}
	value, err := request.SetInput(i, pool, dtype, shape.Dims...)
	if err != nil {
		return err
	}
	memory := value.Bytes()
	if len(content) > 0 {
		if len(content) != len(memory) {
			return status.Errorf(status.InvalidArgument, "input %q has %d bytes; its shape %s needs %d", info.Alias, len(content), tensor.ShapeText(shape.Dims, true), len(memory))
		}
		copy(memory, content)
		return nil
	}
	return fill(memory, dtype, numbers, singles, info.Alias)
}

// fill writes numbers, packed or single, into memory.
func fill(memory []byte, dtype tensor.DType, packed []byte, singles []uint64, alias string) error {
	width := scalars[dtype].width
	for len(packed) > 0 {
		value, n := uint64(0), width
		switch {
		case width == 4 && len(packed) >= 4:
			value = uint64(binary.LittleEndian.Uint32(packed))
		case width == 8 && len(packed) >= 8:
			value = binary.LittleEndian.Uint64(packed)
		case width == 0:
			value, n = binary.Uvarint(packed)
		default:
			n = 0
		}
		if n <= 0 {
			return wire.ErrTruncated
		}
		singles, packed = append(singles, value), packed[n:]
	}
	size := dtype.Size()
	if len(singles) > len(memory)/size {
		return status.Errorf(status.InvalidArgument, "input %q has %d numbers, more than its shape has", alias, len(singles))
	}
	last := uint64(0)
	for at := 0; at < len(memory); at += size {
		if len(singles) > 0 {
			last, singles = singles[0], singles[1:]
		}
		var bytes [8]byte
		binary.LittleEndian.PutUint64(bytes[:], last)
		copy(memory[at:at+size], bytes[:])
	}
	return nil
}

// warmed says what was wrong when a version was warmed.
func warmed(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("warming: %w", err)
}
