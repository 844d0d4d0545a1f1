// Package rawtensor moves tensors between aligned memory and their raw bytes, as binary protocols carry them.
//
// Format: elements row-major, little-endian, nothing between them; strings ("BYTES") are each a 4-byte little-endian length and the
// bytes. Source: Open Inference Protocol v2, "Tensor Data"; Triton's binary tensor data extension.
// Contract: the size must be exact, too few and too many bytes are refused with both numbers; a hostile length costs no memory
// beyond what was really sent. A bool is one byte, 0 or 1; any other value is stored as 1, since C allows no other.
package rawtensor

import (
	"encoding/binary"
	"errors"
	"io"

	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/tensor"
)

// prefix is the length before each string.
const prefix = 4

// Read fills input i of a request, named so in errors, with size raw bytes from r, which go straight into a slab.
// Errors: InvalidArgument if size is not what dtype and dims take or if r ends early; ResourceExhausted without memory.
func Read(r io.Reader, size int, request *model.Request, i int, name string, pool *tensor.Pool, dtype tensor.DType, dims ...int64) error {
	if err := checkShape(name, dtype, size, dims); err != nil {
		return err
	}
	if dtype == tensor.String {
		return readStrings(r, size, request, i, name, dims)
	}
	value, err := request.SetInput(i, pool, dtype, dims...)
	if err != nil {
		return status.Errorf(status.ResourceExhausted, "input %q: %v", name, err)
	}
	memory := value.Bytes()
	if n, err := io.ReadFull(r, memory); err != nil {
		return cutShort(name, n, size, err)
	}
	normalise(dtype, memory)
	return nil
}

// Size is how many bytes Append writes for a value.
func Size(value *tensor.Value) int {
	if value.Type == tensor.String {
		return prefix*len(value.Strings) + tensor.Content(value.Strings)
	}
	return value.Size()
}

// Append writes a value's raw bytes after those of raw.
func Append(raw []byte, value *tensor.Value) []byte {
	if value.Type != tensor.String {
		return append(raw, value.Bytes()...)
	}
	for _, s := range value.Strings {
		raw = binary.LittleEndian.AppendUint32(raw, uint32(len(s)))
		raw = append(raw, s...)
	}
	return raw
}

// checkShape refuses a shape that is impossible, and a size that cannot be right for it, before any memory is taken.
func checkShape(name string, dtype tensor.DType, size int, dims []int64) error {
	if !dtype.Moved() {
		return status.Errorf(status.Unimplemented, "input %q: %v is not served", name, dtype)
	}
	if !tensor.Possible(dims) {
		return status.Errorf(status.InvalidArgument, "input %q: the shape %s is not possible", name, tensor.ShapeText(dims, true))
	}
	elements := tensor.Elements(dims)
	if dtype == tensor.String {
		if size < 0 || int64(size) < prefix*elements {
			return status.Errorf(status.InvalidArgument, "input %q: %d strings in shape %s take at least %d bytes; got %d",
				name, elements, tensor.ShapeText(dims, true), prefix*elements, size)
		}
		return nil
	}
	if want := elements * int64(dtype.Size()); int64(size) != want {
		return status.Errorf(status.InvalidArgument, "input %q: %v in shape %s takes %d bytes; got %d",
			name, dtype, tensor.ShapeText(dims, true), want, size)
	}
	return nil
}

func cutShort(name string, n, size int, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return status.Errorf(status.InvalidArgument, "input %q: the data ended after %d of %d bytes", name, n, size)
	}
	return err
}

// normalise makes every bool 0 or 1.
func normalise(dtype tensor.DType, memory []byte) {
	if dtype != tensor.Bool {
		return
	}
	for i, b := range memory {
		if b > 1 {
			memory[i] = 1
		}
	}
}

// step is how much of a string tensor is believed to come before it has.
const step = 64 << 10

func readStrings(r io.Reader, size int, request *model.Request, i int, name string, dims []int64) error {
	raw := make([]byte, 0, min(size, step))
	for len(raw) < size {
		if len(raw) == cap(raw) {
			raw = append(raw, 0)[:len(raw)]
		}
		n, err := io.ReadFull(r, raw[len(raw):min(size, cap(raw))])
		raw = raw[:len(raw)+n]
		if err != nil {
			return cutShort(name, len(raw), size, err)
		}
	}
	return fillStrings(raw, request, i, name, dims)
}

// fillStrings cuts raw, which it keeps, into strings.
func fillStrings(raw []byte, request *model.Request, i int, name string, dims []int64) error {
	n := int(tensor.Elements(dims))
	strings := make([][]byte, n)
	at := 0
	for k := range strings {
		if len(raw)-at < prefix {
			return status.Errorf(status.InvalidArgument, "input %q: %d strings in shape %s; the data ends at string %d, byte %d",
				name, n, tensor.ShapeText(dims, true), k, at)
		}
		length := int64(binary.LittleEndian.Uint32(raw[at:]))
		at += prefix
		if length > int64(len(raw)-at) {
			return status.Errorf(status.InvalidArgument, "input %q: string %d at byte %d says that it has %d bytes; %d follow",
				name, k, at-prefix, length, len(raw)-at)
		}
		end := at + int(length)
		strings[k] = raw[at:end:end]
		at = end
	}
	if at != len(raw) {
		return status.Errorf(status.InvalidArgument, "input %q: %d bytes are left after the %d strings of shape %s",
			name, len(raw)-at, n, tensor.ShapeText(dims, true))
	}
	return request.SetStrings(i, strings, dims...)
}
