package image

import "math"

// toHalf rounds to IEEE 754 binary16, ties to even; what is too large becomes infinite.
func toHalf(value float32) uint16 {
	const (
		infinite  = 0x7c00
		tooLarge  = 0x477ff000 // 65520, which rounds to 2^16
		smallest  = 0x38800000 // 2^-14, the smallest normal number
		rebias    = (127 - 15) << 23
		mantissas = 23 - 10
	)
	bits := math.Float32bits(value)
	sign := uint16(bits >> 16 & 0x8000)
	bits &= 0x7fffffff
	switch {
	case bits > 0x7f800000:
		return sign | infinite | 0x200 // not a number
	case bits >= tooLarge:
		return sign | infinite
	case bits < smallest: // multiples of 2^-24; float64 holds them and the ties exactly
		return sign | uint16(math.RoundToEven(float64(math.Float32frombits(bits))*(1<<24)))
	}
	bits -= rebias
	return sign | uint16((bits+0xfff+bits>>mantissas&1)>>mantissas)
}

// fromHalf reads IEEE 754 binary16.
func fromHalf(bits uint16) float64 {
	sign, exponent, fraction := 1-2*float64(bits>>15), int(bits>>10&31), float64(bits&1023)
	switch exponent {
	case 0:
		return sign * fraction / (1 << 24)
	case 31:
		if fraction != 0 {
			return math.NaN()
		}
		return sign * math.Inf(1)
	}
	return sign * math.Ldexp(1+fraction/1024, exponent-15)
}
