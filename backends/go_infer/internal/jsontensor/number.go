package jsontensor

import (
	"math"
	"strconv"
	"unsafe"

	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/tensor"
)

// powers holds the powers of ten that a float64 represents exactly.
var powers = [...]float64{
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
}

// exactDigits is how many decimal digits always fit into the 53 bits of a float64.
const exactDigits = 15

// wordDigits is how many always fit into 64 bits.
const wordDigits = 19

// float reads the number at position at, whose grammar is known to be right, and returns the position after it. whole says that it
// was written without fraction and exponent.
//
// Fast path (W. Clinger, "How to read floating point numbers accurately", 1990): mantissa and power of ten both exact, so one
// multiplication or division rounds correctly. Everything else goes through strconv.
//
// With single the caller wants a float32. Then up to 19 digits are fast too (a float32 printed as a float64 has 17): rounding the
// mantissa and dividing errs by less than two units of the last place of a float64, which the float32 does not see unless the value
// lies that near to the middle of two.
func float(text []byte, at int, single bool) (value float64, whole bool, end int) {
	start := at
	if text[at] == '-' {
		at++
	}
	digits := at
	var mantissa uint64
	for at < len(text) && text[at]-'0' <= 9 {
		mantissa = mantissa*10 + uint64(text[at]-'0')
		at++
	}
	count, scale := at-digits, 0
	whole = true
	if at < len(text) && text[at] == '.' {
		whole = false
		point := at
		for at++; at < len(text) && text[at]-'0' <= 9; at++ {
			mantissa = mantissa*10 + uint64(text[at]-'0')
		}
		scale = point + 1 - at
		count -= scale
	}
	if count == 0 || count > exactDigits && (!single || count > wordDigits) { // NaN and Infinity have no digits
		return slow(text, start)
	}
	if at < len(text) && text[at]|0x20 == 'e' {
		whole = false
		var shift int
		if shift, at = exponent(text, at+1); shift == beyond {
			return slow(text, start)
		}
		scale += shift
	}
	value = float64(mantissa)
	switch {
	case scale == 0:
	case scale < 0 && -scale < len(powers):
		value /= powers[-scale]
	case scale > 0 && scale < len(powers):
		value *= powers[scale]
	default:
		return slow(text, start)
	}
	if count > exactDigits && nearMiddle(value) {
		return slow(text, start)
	}
	if text[start] == '-' {
		value = -value
	}
	return value, whole, at
}

// nearMiddle tells whether a value that may be some units off could round to another float32, or is none that is normal.
func nearMiddle(value float64) bool {
	const dropped = 52 - 23 // bits of a float64's fraction that a float32 has not
	distance := int64(math.Float64bits(value)&(1<<dropped-1)) - 1<<(dropped-1)
	return distance > -8 && distance < 8 || value < 0x1p-126 || value > math.MaxFloat32
}

// beyond is an exponent too large for the fast path.
const beyond = 1000

// exponent reads what follows an 'e'.
func exponent(text []byte, at int) (value, end int) {
	negative := text[at] == '-'
	if negative || text[at] == '+' {
		at++
	}
	for at < len(text) && text[at]-'0' <= 9 {
		value = value*10 + int(text[at]-'0')
		if at++; value >= beyond {
			return beyond, at
		}
	}
	if negative {
		value = -value
	}
	return value, at
}

func slow(text []byte, start int) (value float64, whole bool, end int) {
	end = skip(text, start)
	whole = true
	for _, b := range text[start:end] {
		if b != '-' && b-'0' > 9 {
			whole = false
		}
	}
	token := view(text[start:end])
	if token == "-NaN" { // RapidJSON reads it, strconv does not
		return math.NaN(), false, end
	}
	value, _ = strconv.ParseFloat(token, 64) // beyond the range it is an infinity; the caller sees that it is not written as one
	return value, whole, end
}

// view is bytes as a string without a copy, for strconv, which keeps none.
func view(bytes []byte) string { return unsafe.String(unsafe.SliceData(bytes), len(bytes)) }

// written tells whether the token is a NaN or an infinity by its spelling.
func written(token []byte) bool {
	last := token[len(token)-1]
	return last == 'N' || last == 'y' || last == 'f'
}

// isNumber tells whether a number begins here.
func isNumber(b byte) bool { return b-'0' <= 9 || b == '-' || b == 'N' || b == 'I' }

func typeError(text []byte, at int, dtype tensor.DType) error {
	return status.Errorf(status.InvalidArgument, "JSON Value: %s Type: %s is not of expected type: %v",
		Quote(text[at:skip(text, at)]), kind(text, at), dtype)
}

func lossy(text []byte, at int, dtype tensor.DType) error {
	return status.Errorf(status.InvalidArgument, "Cannot convert JSON value: %s to %v without loss of precision.",
		Quote(text[at:skip(text, at)]), dtype)
}

// floats writes the numbers of the list body that begins at position at into row. It returns how many there were, which may be
// more than fit, and the position after the list, or that of what it refuses.
func floats[T float32 | float64](text []byte, at int, row []T, dtype tensor.DType) (n, end int, err error) {
	largestWhole, largest := float64(1<<24-1), float64(math.MaxFloat32)
	if dtype == tensor.Float64 {
		largestWhole, largest = 1<<53-1, math.MaxFloat64
	}
	at, more := first(text, at)
	for more {
		if !isNumber(text[at]) {
			return n, at, typeError(text, at, dtype)
		}
		value, whole, after := float(text, at, dtype == tensor.Float32)
		if value > largestWhole || value < -largestWhole {
			if (whole || math.Abs(value) > largest) && !written(text[at:after]) {
				return n, at, lossy(text, at, dtype)
			}
		}
		if n < len(row) {
			row[n] = T(value)
		}
		n++
		at, more = step(text, after)
	}
	return n, at, nil
}

// halves is floats for a type of 16 bits. A whole number must be one that the type has; a fraction is rounded.
func halves(bits func(float64) uint16, value func(uint16) float64) func([]byte, int, []uint16, tensor.DType) (int, int, error) {
	return func(text []byte, at int, row []uint16, dtype tensor.DType) (n, end int, err error) {
		at, more := first(text, at)
		for more {
			if !isNumber(text[at]) {
				return n, at, typeError(text, at, dtype)
			}
			number, whole, after := float(text, at, false)
			narrow := bits(number)
			if (whole && value(narrow) != number || math.IsInf(value(narrow), 0)) && !written(text[at:after]) {
				return n, at, lossy(text, at, dtype)
			}
			if n < len(row) {
				row[n] = narrow
			}
			n++
			at, more = step(text, after)
		}
		return n, at, nil
	}
}

type integers interface {
	int8 | int16 | int32 | int64 | uint8 | uint16 | uint32 | uint64
}

// ints is floats for integer types; a number with a fraction or an exponent, or out of the type's range, is refused.
func ints[T integers](text []byte, at int, row []T, dtype tensor.DType) (n, end int, err error) {
	at, more := first(text, at)
	for more {
		value, after, ok := integer[T](text, at)
		if !ok {
			return n, at, typeError(text, at, dtype)
		}
		if n < len(row) {
			row[n] = value
		}
		n++
		at, more = step(text, after)
	}
	return n, at, nil
}

// integer reads a whole number; false if it is something else or does not fit.
func integer[T integers](text []byte, at int) (T, int, bool) {
	start := at
	if text[at] == '-' {
		at++
	}
	digits := at
	var magnitude int64
	for at < len(text) && text[at]-'0' <= 9 && at-digits < 18 {
		magnitude = magnitude*10 + int64(text[at]-'0')
		at++
	}
	if at == digits || at < len(text) && (text[at] == '.' || text[at]-'0' <= 9 || text[at]|0x20 == 'e') {
		return wide[T](text, start)
	}
	if text[start] == '-' {
		magnitude = -magnitude
	}
	value := T(magnitude)
	return value, at, int64(value) == magnitude && (value < 0) == (magnitude < 0)
}

// wide is integer for numbers of 19 digits and more, and for what is none.
func wide[T integers](text []byte, at int) (T, int, bool) {
	end := skip(text, at)
	token := view(text[at:end])
	if value, err := strconv.ParseInt(token, 10, 64); err == nil {
		return T(value), end, int64(T(value)) == value && (T(value) < 0) == (value < 0)
	}
	value, err := strconv.ParseUint(token, 10, 64)
	return T(value), end, err == nil && uint64(T(value)) == value && T(value) > 0
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
		at, more = step(text, skip(text, at))
	}
	return n, at, nil
}
