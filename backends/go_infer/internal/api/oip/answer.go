package oip

import (
	"strconv"
	"unicode/utf8"

	"sluicegate/go_infer/internal/classification"
	"sluicegate/go_infer/internal/jsontensor"
	"sluicegate/go_infer/internal/rawtensor"
	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/tensor"
	"sluicegate/go_infer/internal/triton"
)

var octets = []string{"application/octet-stream"}

// Write writes the response: JSON, and after it the outputs that are binary, in the order of the JSON.
func (f *inference) Write() error {
	text := append(f.x.Answer, `{"model_name":`...)
	text = jsontensor.AppendString(text, f.model.Name)
	text = append(text, `,"model_version":"`...)
	text = strconv.AppendInt(text, f.model.Version, 10)
	text = append(text, '"')
	if f.id.Found() && f.id.End-f.id.Start > 2 {
		text = append(append(text, `,"id":`...), f.body[f.id.Start:f.id.End]...)
	}
	text = append(text, `,"outputs":[`...)
	binaries := false
	for i := range f.outputs {
		w := &f.outputs[i]
		w.value = f.request.Out[w.output]
		if w.classes > 0 {
			best, ordered := classification.Best(f.signature, w.output, w.value, w.classes)
			if !ordered {
				return triton.Unordered(f.signature, w.output)
			}
			w.value = best
		}
		if i > 0 {
			text = append(text, ',')
		}
		var err error
		if text, err = f.appendOutput(text, w); err != nil {
			return err
		}
		binaries = binaries || w.binary
	}
	text = append(text, "]}"...)
	if binaries {
		head := len(text)
		for i := range f.outputs {
			if w := &f.outputs[i]; w.binary {
				text = rawtensor.Append(text, &w.value)
			}
		}
		f.x.Header["Content-Type"] = octets
		f.x.Header[headLength] = []string{strconv.Itoa(head)}
	}
	f.x.Answer = text
	return nil
}

func (f *inference) appendOutput(text []byte, w *wanted) ([]byte, error) {
	value := &w.value
	text = append(text, `{"name":`...)
	text = jsontensor.AppendString(text, f.signature.Outputs[w.output].Alias)
	text = append(text, `,"datatype":"`...)
	text = append(text, triton.Datatypes[value.Type]...)
	text = append(text, `","shape":[`...)
	for d, dim := range value.Dims {
		if d > 0 {
			text = append(text, ',')
		}
		text = strconv.AppendInt(text, dim, 10)
	}
	if w.binary {
		text = append(text, `],"parameters":{"binary_data_size":`...)
		text = strconv.AppendInt(text, int64(rawtensor.Size(value)), 10)
		return append(text, "}}"...), nil
	}
	text = append(text, `],"data":[`...)
	if value.Type != tensor.String {
		text = jsontensor.AppendElements(text, value, 0, int(tensor.Elements(value.Dims)))
		return append(text, "]}"...), nil
	}
	for i, element := range value.Strings {
		if !utf8.Valid(element) {
			return text, status.Errorf(status.FailedPrecondition,
				"output '%s' has bytes that are not UTF-8 and cannot be JSON; ask for it with the parameter \"binary_data\": true",
				f.signature.Outputs[w.output].Alias)
		}
		if i > 0 {
			text = append(text, ',')
		}
		text = jsontensor.AppendString(text, string(element))
	}
	return append(text, "]}"...), nil
}
