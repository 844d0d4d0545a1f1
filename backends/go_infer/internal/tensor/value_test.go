package tensor

import "testing"

func TestAShapeIsPossibleIfItsDimensionsMultiplyToWhatMemoryHolds(t *testing.T) {
	const large = 1 << 62
	for _, each := range []struct {
		dims []int64
		want bool
	}{
		{nil, true},
		{[]int64{0, 0, 0}, true},
		{[]int64{1, 64}, true},
		{[]int64{1<<31 - 1}, true},
		{[]int64{1<<31 - 1, 0, 1}, true},
		{[]int64{1 << 31}, false},
		{[]int64{1 << 16, 1 << 15}, false},
		{[]int64{-1}, false},
		{[]int64{0, -1}, false},
		{[]int64{large, large, 0}, false},
		{[]int64{0, large, large}, false},
		{[]int64{1<<63 - 1, 0}, false},
	} {
		if got := Possible(each.dims); got != each.want {
			t.Errorf("%v: %v", each.dims, got)
		}
	}
}
