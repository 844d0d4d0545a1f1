package tensor

import "math"

// Half and BFloat16 elements are uint16 in memory; these functions turn them into numbers and back.
// Source: IEEE 754-2019 (binary16); bfloat16 is the upper half of a binary32.

// narrowFormat is a binary floating-point format of 16 bits.
type narrowFormat struct{ exponent, mantissa uint }

var (
	half     = narrowFormat{5, 10}
	bfloat16 = narrowFormat{8, 7}
)

// HalfBits is the binary16 nearest to value, ties to even; beyond 65504 an infinity.
func HalfBits(value float64) uint16 { return half.bits(value) }

// HalfValue is what a binary16 stands for, exactly.
func HalfValue(bits uint16) float64 { return half.value(bits) }

// BFloat16Bits is the bfloat16 nearest to value, ties to even.
func BFloat16Bits(value float64) uint16 { return bfloat16.bits(value) }

// BFloat16Value is what a bfloat16 stands for, exactly.
func BFloat16Value(bits uint16) float64 { return bfloat16.value(bits) }

func (f narrowFormat) bits(value float64) uint16 {
	wide := math.Float64bits(value)
	sign := uint16(wide>>63) << 15
	fraction := wide & (1<<52 - 1)
	top := uint64(1)<<f.exponent - 1 // the exponent of infinities and NaN
	infinity := uint16(top << f.mantissa)
	exponent := int(wide>>52&0x7ff) - 1023 + int(top>>1)
	switch {
	case math.IsNaN(value):
		return sign | infinity | 1<<(f.mantissa-1)
	case exponent >= int(top):
		return sign | infinity
	case exponent > 0:
		return sign | uint16(round(uint64(exponent)<<52|fraction, 52-f.mantissa)) // rounding may carry into the exponent
	}
	shift := 52 - f.mantissa + uint(1-exponent)
	if shift > 54 { // less than half of the smallest
		return sign
	}
	return sign | uint16(round(1<<52|fraction, shift))
}

// round drops the lowest bits, to nearest, ties to even.
func round(n uint64, bits uint) uint64 {
	kept := n >> bits
	rest, tie := n&(1<<bits-1), uint64(1)<<(bits-1)
	if rest > tie || rest == tie && kept&1 == 1 {
		kept++
	}
	return kept
}

func (f narrowFormat) value(bits uint16) float64 {
	sign := uint64(bits>>15) << 63
	top := 1<<f.exponent - 1
	exponent := int(bits>>f.mantissa) & top
	fraction := uint64(bits) & (1<<f.mantissa - 1)
	switch exponent {
	case top:
		return math.Float64frombits(sign | 0x7ff<<52 | fraction<<(52-f.mantissa))
	case 0:
		smallest := math.Ldexp(1, 1-top>>1-int(f.mantissa))
		return math.Copysign(float64(fraction)*smallest, math.Float64frombits(sign|1))
	}
	return math.Float64frombits(sign | uint64(exponent-top>>1+1023)<<52 | fraction<<(52-f.mantissa))
}
