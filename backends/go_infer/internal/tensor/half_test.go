package tensor

import (
	"math"
	"testing"
)

func TestKnownNarrowNumbers(t *testing.T) {
	for _, c := range []struct {
		name  string
		bits  func(float64) uint16
		value float64
		want  uint16
	}{
		{"half one", HalfBits, 1, 0x3c00},
		{"half tenth", HalfBits, .1, 0x2e66},
		{"half largest", HalfBits, 65504, 0x7bff},
		{"half just below the next", HalfBits, 65519.99, 0x7bff},
		{"half too large", HalfBits, 65520, 0x7c00},
		{"half smallest normal", HalfBits, math.Ldexp(1, -14), 0x0400},
		{"half smallest", HalfBits, math.Ldexp(1, -24), 0x0001},
		{"half tie to even below the smallest", HalfBits, math.Ldexp(1, -25), 0x0000},
		{"half just above that tie", HalfBits, math.Nextafter(math.Ldexp(1, -25), 1), 0x0001},
		{"half tie to even", HalfBits, 2049, 0x6800},
		{"half other tie to even", HalfBits, 2051, 0x6802},
		{"half rounding carries", HalfBits, 1.99999, 0x4000},
		{"half minus zero", HalfBits, math.Copysign(0, -1), 0x8000},
		{"half minus infinity", HalfBits, math.Inf(-1), 0xfc00},
		{"half nothing left", HalfBits, 1e-300, 0x0000},
		{"bfloat16 one", BFloat16Bits, 1, 0x3f80},
		{"bfloat16 pi", BFloat16Bits, math.Pi, 0x4049},
		{"bfloat16 largest", BFloat16Bits, 3.3895314e38, 0x7f7f},
		{"bfloat16 too large", BFloat16Bits, math.MaxFloat32, 0x7f80},
		{"bfloat16 smallest", BFloat16Bits, math.Ldexp(1, -133), 0x0001},
	} {
		if got := c.bits(c.value); got != c.want {
			t.Errorf("%s: %v is %#04x, want %#04x", c.name, c.value, got, c.want)
		}
	}
	if !math.IsNaN(HalfValue(HalfBits(math.NaN()))) || !math.IsNaN(BFloat16Value(BFloat16Bits(math.NaN()))) {
		t.Error("NaN did not survive")
	}
}

func TestEveryNarrowNumberSurvivesAndNeighboursMeetInTheMiddle(t *testing.T) {
	for name, f := range map[string]narrowFormat{"half": half, "bfloat16": bfloat16} {
		for bits := uint16(0); bits < uint16(1<<f.exponent-1)<<f.mantissa; bits++ {
			value := f.value(bits)
			if f.bits(value) != bits || f.bits(-value) != bits|0x8000 || f.value(bits|0x8000) != -value {
				t.Fatalf("%s: %#04x is %v, which is %#04x", name, bits, value, f.bits(value))
			}
			next := f.value(bits + 1)
			if math.IsInf(next, 0) {
				continue
			}
			middle := value + (next-value)/2
			if got, even := f.bits(middle), bits+bits&1; got != even {
				t.Fatalf("%s: the middle after %#04x is %#04x, want %#04x", name, bits, got, even)
			}
			if f.bits(math.Nextafter(middle, 0)) != bits || f.bits(math.Nextafter(middle, math.Inf(1))) != bits+1 {
				t.Fatalf("%s: rounded wrongly beside the middle after %#04x", name, bits)
			}
		}
	}
	for bits := range uint32(1 << 16) { // by the definition of bfloat16
		want := math.Float32frombits(bits << 16)
		if got := float32(BFloat16Value(uint16(bits))); got != want && !math.IsNaN(float64(want)) {
			t.Fatalf("%#04x is %v, want %v", bits, got, want)
		}
	}
}
