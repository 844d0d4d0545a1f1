package oip

import (
	"math"
	"time"

	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/jsontensor"
	"sluicegate/go_infer/internal/triton"
)

// each walks a parameters object, whose values must be strings, numbers or booleans, and tells every key to visit.
func (f *inference) each(span jsontensor.Span, visit func(key []byte, value jsontensor.Span) error) error {
	if !span.Found() {
		return nil
	}
	walk, ok := jsontensor.Pairs(f.body, span)
	if !ok {
		return triton.Refuse("Unable to parse 'parameters': it must be an object")
	}
	for key, value, more := walk.Next(); more; key, value, more = walk.Next() {
		name := f.text(key)
		switch f.body[value.Start] {
		case '{', '[', 'n':
			return triton.Refuse("parameter '%s' must be a string, a number or a boolean", name)
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
			us, err = f.whole(key, value, triton.LongestTimeout)
			f.policy.timeout = time.Duration(us) * time.Microsecond
		case "signature_name":
			if f.body[value.Start] != '"' {
				return triton.NotText(key)
			}
			signature = string(f.text(value))
		case "sequence_id", "sequence_start", "sequence_end":
			switch string(f.body[value.Start:value.End]) {
			case "0", "false", `""`: // none is asked for
			default:
				return triton.Sequence(key)
			}
		default:
			return triton.Reserved(key)
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
			return triton.SharedMemory(key)
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
			return triton.SharedMemory(key)
		}
		return err
	})
}

func (f *inference) truth(key []byte, value jsontensor.Span) (bool, error) {
	is, ok := jsontensor.Truth(f.body, value)
	if !ok {
		return false, triton.NotTruth(key)
	}
	return is, nil
}

func (f *inference) whole(key []byte, value jsontensor.Span, most int64) (int64, error) {
	number, ok := jsontensor.Whole(f.body, value)
	if !ok || number < 0 || number > most {
		return 0, triton.NotWhole(key, most)
	}
	return number, nil
}
