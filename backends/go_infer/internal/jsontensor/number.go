package jsontensor

import (
	"math"
	"strconv"

	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/tensor"
)

// powers holds the powers of ten that a float64 represents exactly.
var powers = [...]float64{
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
}

// exact is the largest mantissa below which every integer is a float64.
const exact = 1 << 53

// float reads the number at position at, whose grammar is known to be right, and returns the position after it. whole says that it
// was written without fraction and exponent.
//
// Fast path (W. Clinger, "How to read floating point numbers accurately", 1990): mantissa and power of ten both exact, so one
// multiplication or division rounds correctly. Everything else goes through strconv.
func float(text []byte, at int) (value float64, whole bool, end int) {
	start := at
	negative := text[at] == '-'
	if negative {
		at++
	}
	var mantissa uint64
	for at < len(text) && text[at]-'0' <= 9 {
		if mantissa >= exact/10 {
			return slow(text, start)
		}
		mantissa = mantissa*10 + uint64(text[at]-'0')
		at++
	}
	if at == start || negative && at == start+1 {
		return slow(text, start) // NaN, Infinity
	}
	whole = true
	scale := 0
	if at < len(text) && text[at] == '.' {
		whole = false
		for at++; at < len(text) && text[at]-'0' <= 9; at++ {
			if mantissa >= exact/10 {
				return slow(text, start)
			}
			mantissa = mantissa*10 + uint64(text[at]-'0')
			scale--
		}
	}
	if at < len(text) && text[at]|0x20 == 'e' {
		return slow(text, start)
	}
	if -scale >= len(powers) {
		return slow(text, start)
	}
	value = float64(mantissa) / powers[-scale]
	if negative {
		value = -value
	}
	return value, whole, at
}

func slow(text []byte, start int) (value float64, whole bool, end int) {
	end = skip(text, start)
	token := string(text[start:end])
	whole = true
	for i := range token {
		if b := token[i]; b != '-' && b-'0' > 9 {
			whole = false
		}
	}
	if token == "-NaN" { // RapidJSON reads it, strconv does not
		return math.NaN(), false, end
	}
	value, _ = strconv.ParseFloat(token, 64) // beyond the range it is an infinity; the caller sees that it is not written as one
	return value, whole, end
}

// written tells whether the token is a NaN or an infinity by its spelling.
func written(token []byte) bool {
	last := token[len(token)-1]
	return last == 'N' || last == 'y' || last == 'f'
}

// isNumber tells whether a number begins here.
func isNumber(b byte) bool { return b-'0' <= 9 || b == '-' || b == 'N' || b == 'I' }

func typeError(text []byte, at int, dtype tensor.DType) error {
	return status.Errorf(status.InvalidArgument, "JSON Value: %s Type: %s is not of expected type: %v at offset: %d",
		Quote(text[at:skip(text, at)]), kind(text, at), dtype, at)
}

func lossy(text []byte, at int, dtype tensor.DType) error {
	return status.Errorf(status.InvalidArgument, "Cannot convert JSON value: %s to %v without loss of precision. at offset: %d",
		Quote(text[at:skip(text, at)]), dtype, at)
}

// floats writes the numbers of the list body that begins at position at into row. It returns how many there were, which may be
// more than fit, and the position after the list.
func floats[T float32 | float64](text []byte, at int, row []T, dtype tensor.DType) (n, end int, err error) {
	largestWhole, largest := float64(1<<24-1), float64(math.MaxFloat32)
	if dtype == tensor.Float64 {
		largestWhole, largest = exact-1, math.MaxFloat64
	}
	at, more := first(text, at)
	for more {
		if !isNumber(text[at]) {
			return n, at, typeError(text, at, dtype)
		}
		value, whole, after := float(text, at)
		if magnitude := math.Abs(value); (whole && magnitude > largestWhole || magnitude > largest) && !written(text[at:after]) {
			return n, at, lossy(text, at, dtype)
		}
		if n < len(row) {
			row[n] = T(value)
		}
		n++
		at, more = next(text, after)
	}
	return n, at, nil
}

// ints is floats for integer types; a number with a fraction or an exponent, or out of the type's range, is refused.
func ints[T int8 | int16 | int32 | int64 | uint8 | uint16 | uint32 | uint64](text []byte, at int, row []T, dtype tensor.DType) (n, end int, err error) {
	at, more := first(text, at)
	for more {
		if !isNumber(text[at]) {
			return n, at, typeError(text, at, dtype)
		}
		after := skip(text, at)
		value, ok := integer[T](string(text[at:after]))
		if !ok {
			return n, at, typeError(text, at, dtype)
		}
		if n < len(row) {
			row[n] = value
		}
		n++
		at, more = next(text, after)
	}
	return n, at, nil
}

func integer[T int8 | int16 | int32 | int64 | uint8 | uint16 | uint32 | uint64](token string) (T, bool) {
	if value, err := strconv.ParseInt(token, 10, 64); err == nil {
		return T(value), int64(T(value)) == value && (T(value) < 0) == (value < 0)
	}
	value, err := strconv.ParseUint(token, 10, 64)
	return T(value), err == nil && uint64(T(value)) == value && T(value) > 0
}

// bools is floats for true and false.
func bools(text []byte, at int, row []bool, dtype tensor.DType) (n, end int, err error) {
	at, more := first(text, at)
	for more {
		if text[at] != 't' && text[at] != 'f' {
			return n, at, typeError(text, at, dtype)
		}
		if n < len(row) {
			row[n] = text[at] == 't'
		}
		n++
		at, more = next(text, skip(text, at))
	}
	return n, at, nil
}
