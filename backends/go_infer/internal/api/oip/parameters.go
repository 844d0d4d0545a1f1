package oip

import (
	"bytes"
	"math"
	"time"

	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/jsontensor"
)

// What is refused, because to ignore it would give a wrong answer.
const (
	noSequences    = "model '%s' is not stateful: '%s' is not supported"
	noSharedMemory = "'%s' is not supported: this server has no shared memory; send the data"
)

// longestTimeout bounds "timeout" so that it fits a time.Duration.
const longestTimeout = math.MaxInt64 / int64(time.Microsecond)

// each walks a parameters object, whose values must be strings, numbers or booleans, and tells every key to visit.
func (f *inference) each(span jsontensor.Span, visit func(key []byte, value jsontensor.Span) error) error {
	if !span.Found() {
		return nil
	}
	walk, ok := jsontensor.Pairs(f.body, span)
	if !ok {
		return refuse("Unable to parse 'parameters': it must be an object")
	}
	for key, value, more := walk.Next(); more; key, value, more = walk.Next() {
		name := f.text(key)
		switch f.body[value.Start] {
		case '{', '[', 'n':
			return refuse("parameter '%s' must be a string, a number or a boolean", name)
		}
		if err := visit(name, value); err != nil {
			return err
		}
	}
	return nil
}

// parameters reads those of the request; it returns the name of the signature that is asked for.
func (f *inference) parameters(span jsontensor.Span) (signature string, err error) {
	err = f.each(span, func(key []byte, value jsontensor.Span) (err error) {
		switch string(key) {
		case "binary_data_output":
			f.binary, err = f.truth(key, value)
		case "priority":
			var level int64
			level, err = f.whole(key, value, math.MaxInt64)
			f.policy.class = batch.ClassOfLevel(uint64(level))
		case "timeout":
			var us int64
			us, err = f.whole(key, value, longestTimeout)
			f.policy.timeout = time.Duration(us) * time.Microsecond
		case "signature_name":
			if f.body[value.Start] != '"' {
				return refuse("Unable to parse '%s': it must be a string", key)
			}
			signature = string(f.text(value))
		case "sequence_id", "sequence_start", "sequence_end":
			return refuse(noSequences, f.model.Name, key)
		default:
			if bytes.HasPrefix(key, []byte("triton_")) {
				return refuse("parameter keys starting with 'triton_' are reserved for Triton usage and should not be specified.")
			}
		}
		return err
	})
	return signature, err
}

// inputParameters reads those of an input: the size of its binary data, or -1.
func (f *inference) inputParameters(span jsontensor.Span) (size int64, err error) {
	size = -1
	err = f.each(span, func(key []byte, value jsontensor.Span) (err error) {
		switch string(key) {
		case "binary_data_size":
			size, err = f.whole(key, value, math.MaxInt32)
		case "shared_memory_region":
			return refuse(noSharedMemory, key)
		}
		return err
	})
	return size, err
}

// outputParameters reads those of a requested output.
func (f *inference) outputParameters(span jsontensor.Span, w *wanted) error {
	return f.each(span, func(key []byte, value jsontensor.Span) (err error) {
		switch string(key) {
		case "binary_data":
			w.binary, err = f.truth(key, value)
		case "classification":
			var classes int64
			classes, err = f.whole(key, value, math.MaxInt32)
			w.classes = int(classes)
		case "shared_memory_region":
			return refuse(noSharedMemory, key)
		}
		return err
	})
}

func (f *inference) truth(key []byte, value jsontensor.Span) (bool, error) {
	is, ok := jsontensor.Truth(f.body, value)
	if !ok {
		return false, refuse("Unable to parse '%s': it must be true or false", key)
	}
	return is, nil
}

func (f *inference) whole(key []byte, value jsontensor.Span, most int64) (int64, error) {
	number, ok := jsontensor.Whole(f.body, value)
	if !ok || number < 0 || number > most {
		return 0, refuse("Unable to parse '%s': it must be a whole number, 0..%d", key, most)
	}
	return number, nil
}
