package triton

import (
	"bytes"
	"math"
	"time"
)

// LongestTimeout bounds the parameter "timeout", in microseconds, so that it fits a time.Duration.
const LongestTimeout = math.MaxInt64 / int64(time.Microsecond)

// What is wrong with the value of a parameter.
func NotWhole(key []byte, most int64) error {
	return Refuse("parameter '%s' must be a whole number, 0..%d", key, most)
}
func NotTruth(key []byte) error { return Refuse("parameter '%s' must be true or false", key) }
func NotText(key []byte) error  { return Refuse("parameter '%s' must be a string", key) }

// What is refused, because to ignore it would give a wrong answer.
func Sequence(key []byte) error {
	return Refuse("'%s' is not supported: the model is not stateful", key)
}
func SharedMemory(key []byte) error {
	return Refuse("'%s' is not supported: this server has no shared memory; send the data", key)
}

// Reserved refuses the parameters of Triton's own that nobody here knows.
func Reserved(key []byte) error {
	if bytes.HasPrefix(key, []byte("triton_")) {
		return Refuse("parameter keys starting with 'triton_' are reserved for Triton usage and should not be specified.")
	}
	return nil
}
