// Package examples runs signatures that take serialized tf.Examples: classification and regression.
//
// Contract: it is protocol-neutral: an API brings serialized examples, and gets classes and scores, or values. What is refused, and
// its text, is as in TensorFlow Serving (servables/tensorflow/{classifier,regressor,util}.cc).
package examples

import (
	"context"

	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/tensor"
)

// The method names of signatures that take examples, and the aliases of their tensors.
const (
	ClassifyMethod = "tensorflow/serving/classify"
	RegressMethod  = "tensorflow/serving/regress"

	inputAlias   = "inputs"
	classesAlias = "classes"
	scoresAlias  = "scores"
	outputAlias  = "outputs"
)

// Class is one class of one example. A signature may give classes without scores or scores without classes.
type Class struct {
	Label string
	Score float32
}

// Signature finds a signature by name (empty: the default one) and holds it against the method that it is to be called by.
func Signature(found *model.Model, name, method string) (*model.Servable, error) {
	if name == "" {
		name = model.DefaultSignature
	}
	servable, known := found.Signatures[name]
	if !known {
		return nil, status.Errorf(status.InvalidArgument, "No signature was found with the name: %s", name)
	}
	if err := Check(servable, method); err != nil {
		return nil, err
	}
	return servable, nil
}

// Check holds a signature against the method that it is to be called by.
func Check(servable *model.Servable, method string) error {
	invalid := func(format string, arguments ...any) error {
		return status.Errorf(status.InvalidArgument, format, arguments...)
	}
	kind := map[string]string{ClassifyMethod: "classification", RegressMethod: "regression"}[method]
	switch {
	case servable.Method != method:
		return invalid("Expected %s signature method_name to be %s. Was: %s", kind, method, servable.Method)
	case len(servable.Inputs) != 1:
		return invalid("Expected one input Tensor.")
	case method == ClassifyMethod && len(servable.Outputs) != 1 && len(servable.Outputs) != 2:
		return invalid("Expected one or two output Tensors, found %d", len(servable.Outputs))
	case method == RegressMethod && len(servable.Outputs) != 1:
		return invalid("Expected one output Tensor.")
	case servable.Input(inputAlias) < 0:
		return status.Errorf(status.FailedPrecondition, "No %s inputs found in SignatureDef: %s", kind, servable.Name)
	case method == ClassifyMethod && servable.Output(classesAlias) < 0 && servable.Output(scoresAlias) < 0:
		return status.Errorf(status.FailedPrecondition,
			`Expected classification signature outputs to contain at least one of "classes" or "scores". Signature was: %s`, servable.Name)
	case method == RegressMethod && servable.Output(outputAlias) < 0:
		return status.Errorf(status.FailedPrecondition, "No regression outputs found in SignatureDef: %s", servable.Name)
	case servable.Refused != "":
		return status.Errorf(status.Unimplemented, "%s", servable.Refused)
	case servable.Inputs[0].Type != tensor.String:
		return invalid("input %q is %v; serialized examples are strings", servable.Inputs[0].Alias, servable.Inputs[0].Type)
	}
	return nil
}

// run feeds the serialized examples to the signature. The caller releases the request.
func run(ctx context.Context, servable *model.Servable, serialized [][]byte, class batch.Class) (*model.Request, error) {
	if len(serialized) == 0 {
		return nil, status.Errorf(status.InvalidArgument, "Input is empty.")
	}
	request := model.NewRequest(1)
	request.Class = class
	err := request.SetStrings(0, serialized, int64(len(serialized)))
	if err == nil {
		request.Rows = 1
		if servable.Rowwise() {
			request.Rows = len(serialized)
		}
		err = servable.Run(ctx, request)
	}
	if err != nil {
		request.Release()
		return nil, err
	}
	return request, nil
}

// Classify gives each example its classes; class is how urgent that is.
func Classify(ctx context.Context, servable *model.Servable, serialized [][]byte, class batch.Class) ([][]Class, error) {
	request, err := run(ctx, servable, serialized, class)
	if err != nil {
		return nil, err
	}
	defer request.Release()
	var classes, scores *tensor.Value
	count := 0
	for _, output := range []struct {
		alias string
		dtype tensor.DType
		value **tensor.Value
	}{{classesAlias, tensor.String, &classes}, {scoresAlias, tensor.Float32, &scores}} {
		at := servable.Output(output.alias)
		if at < 0 {
			continue
		}
		value := &request.Out[at]
		switch {
		case len(value.Dims) != 2:
			return nil, status.Errorf(status.InvalidArgument, "Expected Tensor shape: [batch_size num_classes] but got %s",
				tensor.ShapeText(value.Dims, true))
		case value.Type != output.dtype:
			return nil, status.Errorf(status.InvalidArgument, "Expected %s Tensor of %s. Got: %s", output.alias, output.dtype.Proto(), value.Type.Proto())
		case value.Dims[0] != int64(len(serialized)):
			return nil, status.Errorf(status.InvalidArgument, "Expected %s output batch size of %d. Got: %d", output.alias, len(serialized), value.Dims[0])
		}
		*output.value, count = value, int(value.Dims[1])
	}
	if classes != nil && scores != nil && classes.Dims[1] != scores.Dims[1] {
		return nil, status.Errorf(status.InvalidArgument, "Tensors class and score should match in dim_size(1). Got %d vs. %d",
			classes.Dims[1], scores.Dims[1])
	}
	all := make([][]Class, len(serialized))
	flat := make([]Class, len(serialized)*count)
	for i := range flat {
		if classes != nil {
			flat[i].Label = string(classes.Strings[i])
		}
		if scores != nil {
			flat[i].Score = tensor.View[float32](scores.Slab, len(flat))[i]
		}
	}
	for row := range all {
		all[row] = flat[row*count : (row+1)*count : (row+1)*count]
	}
	return all, nil
}

// Regress gives each example its value; class is how urgent that is.
func Regress(ctx context.Context, servable *model.Servable, serialized [][]byte, class batch.Class) ([]float32, error) {
	request, err := run(ctx, servable, serialized, class)
	if err != nil {
		return nil, err
	}
	defer request.Release()
	value := &request.Out[servable.Output(outputAlias)]
	dims := value.Dims
	switch {
	case len(dims) != 1 && (len(dims) != 2 || dims[1] != 1):
		return nil, status.Errorf(status.InvalidArgument, "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got %s",
			tensor.ShapeText(dims, true))
	case dims[0] != int64(len(serialized)):
		return nil, status.Errorf(status.InvalidArgument, "Input batch size did not match output batch size: %d vs. %d", len(serialized), dims[0])
	case value.Type != tensor.Float32:
		return nil, status.Errorf(status.InvalidArgument, "Expected output Tensor of DT_FLOAT.  Got: %s", value.Type.Proto())
	}
	return append([]float32(nil), tensor.View[float32](value.Slab, len(serialized))...), nil
}
