package tensor

import (
	"math"
	"strconv"
	"strings"
)

// Value is a dense tensor: row-major, elements of one type. They lie in a slab, except strings, which are Go memory.
type Value struct {
	Slab    *Slab // nil if Type is String
	Type    DType
	Dims    []int64
	Strings [][]byte // the elements if Type is String, else empty
}

// Elements is the product of dims.
func Elements(dims []int64) int64 {
	count := int64(1)
	for _, dim := range dims {
		count *= dim
	}
	return count
}

// Possible says whether a tensor may have that shape. TensorFlow ends the process over dimensions whose product overflows, also where a
// further one is 0, so zeros count as one here; 2^31 elements are more than any request holds.
func Possible(dims []int64) bool {
	count := int64(1)
	for _, dim := range dims {
		if dim < 0 || dim > math.MaxInt32/count {
			return false
		}
		count *= max(dim, 1)
	}
	return true
}

// Size is the tensor's length in bytes; 0 for strings.
func (v *Value) Size() int { return int(Elements(v.Dims)) * v.Type.Size() }

// Bytes is the tensor's memory, in place; nil for strings.
func (v *Value) Bytes() []byte {
	if v.Slab == nil {
		return nil
	}
	return v.Slab.Bytes(v.Size())
}

// ShapeText prints dims as TF-Serving does: "[1,64]", "[?]" for an unknown rank.
func ShapeText(dims []int64, known bool) string {
	if !known {
		return "[?]"
	}
	var text strings.Builder
	text.WriteByte('[')
	for i, dim := range dims {
		if i > 0 {
			text.WriteByte(',')
		}
		text.WriteString(strconv.FormatInt(dim, 10))
	}
	text.WriteByte(']')
	return text.String()
}
