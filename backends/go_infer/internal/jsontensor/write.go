package jsontensor

import (
	"encoding/base64"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
	"unsafe"

	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/tensor"
)

// AppendRows writes the outputs in row format: one entry per row, the bare value if there is one output, else an object.
func AppendRows(text []byte, s *model.Signature, request *model.Request) ([]byte, error) {
	n := int64(-1)
	for i := range request.Out {
		out := &request.Out[i]
		if len(out.Dims) == 0 {
			return text, status.Errorf(status.InvalidArgument,
				"Tensor name: %s has no shape information  (a scalar has no rows; use the columnar format, 'inputs')", s.Outputs[i].Alias)
		}
		if n >= 0 && out.Dims[0] != n {
			return text, status.Errorf(status.InvalidArgument, "Tensor name: %s has inconsistent batch size: %d expecting: %d",
				s.Outputs[i].Alias, out.Dims[0], n)
		}
		n = out.Dims[0]
	}
	text = append(text, '[')
	for row := range int(n) {
		if err := s.CheckAnswer(len(text)); err != nil {
			return text, err
		}
		if row > 0 {
			text = append(text, ',')
		}
		if len(request.Out) == 1 {
			text = appendRow(text, s, request, 0, row)
			continue
		}
		for i := range request.Out {
			text = append(text, "{,"[min(i, 1)])
			text = AppendString(text, s.Outputs[i].Alias)
			text = append(text, ':')
			text = appendRow(text, s, request, i, row)
		}
		text = append(text, '}')
	}
	return append(text, ']'), nil
}

// AppendColumns writes the outputs in columnar format: the bare tensor if there is one output, else an object.
func AppendColumns(text []byte, s *model.Signature, request *model.Request) []byte {
	if len(request.Out) == 1 {
		return appendTensor(text, writer(s, request, 0), &request.Out[0], 0, request.Out[0].Dims)
	}
	for i := range request.Out {
		text = append(text, "{,"[min(i, 1)])
		text = AppendString(text, s.Outputs[i].Alias)
		text = append(text, ':')
		text = appendTensor(text, writer(s, request, i), &request.Out[i], 0, request.Out[i].Dims)
	}
	return append(text, '}')
}

func appendRow(text []byte, s *model.Signature, request *model.Request, output, row int) []byte {
	value := &request.Out[output]
	inner := value.Dims[1:]
	return appendTensor(text, writer(s, request, output), value, row*int(tensor.Elements(inner)), inner)
}

// elementWriter writes element i of a value.
type elementWriter func(text []byte, value *tensor.Value, i int) []byte

// bytesSuffix ends the aliases of outputs that are bytes and not text, by TF-Serving's convention.
const bytesSuffix = "_bytes"

// writer is how the elements of an output are written.
func writer(s *model.Signature, request *model.Request, output int) elementWriter {
	if request.Out[output].Type == tensor.String && strings.HasSuffix(s.Outputs[output].Alias, bytesSuffix) {
		return appendBytes
	}
	return appendElement
}

func appendBytes(text []byte, value *tensor.Value, i int) []byte {
	text = append(text, `{"b64":"`...)
	text = base64.StdEncoding.AppendEncode(text, value.Strings[i])
	return append(text, `"}`...)
}

// appendTensor writes the part of value that begins at element and has the shape dims.
func appendTensor(text []byte, write elementWriter, value *tensor.Value, element int, dims []int64) []byte {
	if len(dims) == 0 {
		return write(text, value, element)
	}
	step := int(tensor.Elements(dims[1:]))
	text = append(text, '[')
	for i := range int(dims[0]) {
		if i > 0 {
			text = append(text, ',')
		}
		text = appendTensor(text, write, value, element+i*step, dims[1:])
	}
	return append(text, ']')
}

func appendElement(text []byte, value *tensor.Value, i int) []byte {
	slab := value.Slab
	switch value.Type {
	case tensor.Float32:
		return AppendFloat(text, float64(tensor.View[float32](slab, i+1)[i]), 32)
	case tensor.Float64:
		return AppendFloat(text, tensor.View[float64](slab, i+1)[i], 64)
	case tensor.Int8:
		return strconv.AppendInt(text, int64(tensor.View[int8](slab, i+1)[i]), 10)
	case tensor.Int16:
		return strconv.AppendInt(text, int64(tensor.View[int16](slab, i+1)[i]), 10)
	case tensor.Int32:
		return strconv.AppendInt(text, int64(tensor.View[int32](slab, i+1)[i]), 10)
	case tensor.Int64:
		return strconv.AppendInt(text, tensor.View[int64](slab, i+1)[i], 10)
	case tensor.Uint8:
		return strconv.AppendUint(text, uint64(tensor.View[uint8](slab, i+1)[i]), 10)
	case tensor.Uint16:
		return strconv.AppendUint(text, uint64(tensor.View[uint16](slab, i+1)[i]), 10)
	case tensor.Uint32:
		return strconv.AppendUint(text, uint64(tensor.View[uint32](slab, i+1)[i]), 10)
	case tensor.Uint64:
		return strconv.AppendUint(text, tensor.View[uint64](slab, i+1)[i], 10)
	case tensor.Bool:
		return strconv.AppendBool(text, tensor.View[bool](slab, i+1)[i])
	case tensor.Half:
		return AppendFloat(text, tensor.HalfValue(tensor.View[uint16](slab, i+1)[i]), 32)
	case tensor.BFloat16:
		return AppendFloat(text, tensor.BFloat16Value(tensor.View[uint16](slab, i+1)[i]), 32)
	case tensor.String:
		return AppendText(text, value.Strings[i])
	}
	return append(text, "null"...) // cannot be: such a signature is refused at load
}

// AppendFloat writes the shortest text that reads back as the same number, always with '.' or 'e', so that no reader takes a float
// for an integer. NaN and infinities are bare, as TF-Serving has them.
func AppendFloat(text []byte, value float64, bits int) []byte {
	switch {
	case math.IsNaN(value):
		return append(text, "NaN"...)
	case math.IsInf(value, 1):
		return append(text, "Infinity"...)
	case math.IsInf(value, -1):
		return append(text, "-Infinity"...)
	}
	start := len(text)
	text = strconv.AppendFloat(text, value, 'g', -1, bits)
	for _, b := range text[start:] {
		if b == '.' || b == 'e' {
			return text
		}
	}
	return append(text, ".0"...)
}

const hexDigits = "0123456789abcdef"

// AppendString writes a JSON string; see AppendText.
func AppendString(text []byte, s string) []byte {
	return AppendText(text, unsafe.Slice(unsafe.StringData(s), len(s)))
}

// AppendText writes a JSON string. Valid UTF-8 is kept, an invalid byte becomes U+FFFD; control characters, quotes and backslashes are
// escaped.
func AppendText(text, s []byte) []byte {
	text = append(text, '"')
	for len(s) > 0 {
		plain := 0
		for plain < len(s) && s[plain] >= 0x20 && s[plain] < 0x7f && s[plain] != '"' && s[plain] != '\\' {
			plain++
		}
		text = append(text, s[:plain]...)
		if s = s[plain:]; len(s) == 0 {
			break
		}
		r, size := utf8.DecodeRune(s)
		s = s[size:]
		switch {
		case r == '"' || r == '\\':
			text = append(text, '\\', byte(r))
		case r == '\n':
			text = append(text, `\n`...)
		case r < 0x20 || r == 0x7f:
			text = append(text, '\\', 'u', '0', '0', hexDigits[r>>4], hexDigits[r&15])
		default:
			text = utf8.AppendRune(text, r)
		}
	}
	return append(text, '"')
}
