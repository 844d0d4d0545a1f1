package jsontensor

import (
	"encoding/binary"
	"math"

	"sluicegate/go_infer/internal/status"
)

// The kinds of a feature's list are its field numbers in tensorflow/core/example/feature.proto, message Feature.
const (
	noKind    = 0
	bytesKind = 1
	floatKind = 2
	int64Kind = 3
)

var kindNames = [...]string{noKind: "UNKNOWN", bytesKind: "bytes", floatKind: "float", int64Kind: "int64"}

// ReadExamples reads {"examples": [{feature: value}], "context": {feature: value}} of classify and regress and returns each example as a
// serialized tf.Example, with the context's features where it has none of that name. A value is a number, a string, {"b64"}, a bool,
// or a list of one kind: numbers with '.' or 'e' are floats, others int64, as TF-Serving tells them apart.
func (d *Document) ReadExamples() ([][]byte, error) {
	body := d.Body
	w := exampleWriter{text: body}
	var context []byte
	if d.Context.Found() {
		var err error
		if context, err = w.example(nil, d.Context.Start); err != nil {
			return nil, err
		}
	}
	switch {
	case !d.Examples.Found():
		return nil, status.Errorf(status.InvalidArgument,
			"JSON Value: %s When method is classify, key 'examples' is expected and was not found", Quote(body))
	case body[d.Examples.Start] != '[':
		return nil, status.Errorf(status.InvalidArgument, "JSON Value: %s Expecting 'examples' value to be an list/array", Quote(body))
	}
	at, more := first(body, d.Examples.Start)
	if !more {
		return nil, status.Errorf(status.InvalidArgument, "JSON Value: %s 'examples' value is an empty array", Quote(body))
	}
	var all [][]byte
	for more {
		// Serialized messages that follow each other are one message, in which the later entry of a map counts.
		example, err := w.example(context[:len(context):len(context)], at)
		if err != nil {
			return nil, err
		}
		all = append(all, example)
		at, more = next(body, skip(body, at))
	}
	return all, nil
}

// exampleWriter writes tf.Examples; its buffers are used again and again.
type exampleWriter struct {
	text                  []byte
	list, entry, features []byte
	strings               arena
}

// message appends a length-delimited field.
func message(to []byte, field byte, content []byte) []byte {
	to = append(to, field<<3|2)
	to = binary.AppendUvarint(to, uint64(len(content)))
	return append(to, content...)
}

// example appends a serialized Example of the object at position at.
func (w *exampleWriter) example(to []byte, at int) ([]byte, error) {
	if w.text[at] != '{' {
		return nil, refuse(at, "Example must be JSON object but got JSON %s", kind(w.text, at))
	}
	w.features = w.features[:0]
	var failure error
	each(w.text, at, func(name string, value Span) bool {
		if failure = w.feature(name, value.Start); failure != nil {
			return false
		}
		w.features = message(w.features, 1, w.entry)
		return true
	})
	if failure != nil {
		return nil, failure
	}
	return message(to, 1, w.features), nil
}

// feature leaves the map entry of a feature in w.entry: key 1, Feature 2 with its list in the field of its kind.
func (w *exampleWriter) feature(name string, at int) error {
	w.list = w.list[:0]
	of := noKind
	var err error
	if w.text[at] == '[' {
		for at, more := first(w.text, at); more && err == nil; at, more = next(w.text, skip(w.text, at)) {
			of, err = w.element(name, at, of)
		}
	} else {
		of, err = w.element(name, at, of)
	}
	if err != nil {
		return err
	}
	if of == floatKind || of == int64Kind { // packed: value is one field
		w.entry = message(w.entry[:0], 1, w.list)
		w.list = append(w.list[:0], w.entry...)
	}
	w.entry = message(w.entry[:0], 1, []byte(name))
	if of == noKind {
		w.entry = message(w.entry, 2, nil)
		return nil
	}
	feature := message(nil, byte(of), w.list)
	w.entry = message(w.entry, 2, feature)
	return nil
}

// element appends one value to the list, which is of kind so far, and returns what kind it is now.
func (w *exampleWriter) element(name string, at, so int) (int, error) {
	text := w.text
	of := noKind
	switch b := text[at]; {
	case b == 't' || b == 'f':
		of = int64Kind
	case b == '"' || b == '{' && isBase64(text, at):
		of = bytesKind
	case isNumber(b):
		if _, _, whole := integer[int64](text, at); whole {
			of = int64Kind
		} else if _, _, whole := integer[uint64](text, at); whole {
			return of, refuse(at, "Feature: %s has uint64 element. Only int64 is supported.", name)
		} else {
			of = floatKind // beyond 64 bits too, as RapidJSON has it
		}
	default:
		return of, refuse(at, "Feature: %s has element with unexpected JSON type: %s", name, kind(text, at))
	}
	if so != noKind && so != of {
		return of, refuse(at, "Unexpected element type in feature: %s expecting type: %s", name, kindNames[so])
	}
	switch of {
	case bytesKind:
		w.strings.memory = w.strings.memory[:0]
		content, _, err := w.strings.element(text, at)
		if err != nil {
			return of, refuse(at, "%s", err)
		}
		w.list = message(w.list, 1, content)
	case floatKind:
		value, _, end := float(text, at, false)
		if math.Abs(value) > math.MaxFloat32 && !written(text[at:end]) {
			return of, refuse(at, "Cannot convert JSON value: %s to float without loss of precision.", Quote(text[at:end]))
		}
		w.list = binary.LittleEndian.AppendUint32(w.list, math.Float32bits(float32(value)))
	case int64Kind:
		value := int64(0)
		if text[at] == 't' {
			value = 1
		} else if text[at] != 'f' {
			value, _, _ = integer[int64](text, at)
		}
		w.list = binary.AppendUvarint(w.list, uint64(value))
	}
	return of, nil
}
