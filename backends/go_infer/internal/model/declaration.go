package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"

	"sluicegate/go_infer/internal/image"
	"sluicegate/go_infer/internal/tensor"
)

// DeclarationFile is where a version says what its tensors mean. It is optional; without it the model serves tensors only.
const DeclarationFile = "assets.extra/sluicegate.json"

// Declaration is what a model says about itself that its graph cannot: how a picture becomes its input, what its outputs mean.
type Declaration struct {
	Description string `json:"description"`
	Signature   string `json:"signature"`
	Input       struct {
		Tensor     string            `json:"tensor"`
		Preprocess *image.Preprocess `json:"preprocess"`
	} `json:"input"`
	Outputs struct {
		Label  string            `json:"label"`
		Scores string            `json:"scores"`
		More   map[string]Output `json:"more"` // by the name that answers give it
	} `json:"outputs"`
	Labels   []string `json:"labels"`
	Batching Batching `json:"batching"`
	HeldOut  struct {
		Accuracy float64 `json:"accuracy"`
		Examples int     `json:"examples"`
	} `json:"heldout"`
}

// Output is an output beside the scores. With labels its rows are scores of its own, which answers rank; without, they are told as they are.
type Output struct {
	Tensor string   `json:"tensor"`
	Labels []string `json:"labels"`
}

// Batching says of all signatures (true, false) or of each ({"serving_default": false}) whether requests may share a Run, be padded and be
// divided. What is not said is found out.
type Batching struct {
	all  *bool
	each map[string]bool
}

// UnmarshalJSON reads true, false or an object of them.
func (b *Batching) UnmarshalJSON(text []byte) error {
	if json.Unmarshal(text, &b.all) == nil {
		return nil
	}
	b.all = nil
	if json.Unmarshal(text, &b.each) == nil {
		return nil
	}
	return errors.New(`batching must be true, false or an object as in {"serving_default": false}`)
}

// of is what is said of a signature; nil: nothing.
func (b *Batching) of(signature string) *bool {
	if said, known := b.each[signature]; known {
		return &said
	}
	return b.all
}

// bare says that nothing is declared of a signature's tensors.
func (d *Declaration) bare() bool {
	return d.Signature == DefaultSignature && d.Input.Tensor == "" && d.Input.Preprocess == nil && d.Outputs.Label == "" &&
		d.Outputs.Scores == "" && len(d.Outputs.More) == 0
}

// readDeclaration returns nil without an error if the version has no declaration.
func readDeclaration(directory string) (*Declaration, error) {
	content, err := os.ReadFile(filepath.Join(directory, DeclarationFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	declared := &Declaration{Signature: DefaultSignature}
	if err := json.Unmarshal(content, declared); err != nil {
		return nil, fmt.Errorf("%s: %s", DeclarationFile, explain(content, err))
	}
	return declared, nil
}

// explain says where in the declaration a mistake is, and what it is.
func explain(content []byte, err error) string {
	var preprocess *image.DeclarationError
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &preprocess):
		return "input." + preprocess.Error()
	case errors.As(err, &syntax):
		return fmt.Sprintf("line %d: %v", 1+bytes.Count(content[:min(syntax.Offset, int64(len(content)))], []byte("\n")), err)
	case errors.As(err, &kind) && kind.Field == "":
		return "it is a JSON " + kind.Value + "; it must be an object"
	case errors.As(err, &kind):
		return fmt.Sprintf("%s is a %s; it must be %s", kind.Field, kind.Value, plainly[kind.Type.Kind()])
	}
	return err.Error()
}

// plainly is what Go's kinds are in JSON.
var plainly = map[reflect.Kind]string{
	reflect.String: "a string", reflect.Slice: "a list", reflect.Map: "an object", reflect.Struct: "an object",
	reflect.Int: "a whole number", reflect.Float64: "a number",
}

// check holds the declaration against the signature it speaks of.
func (d *Declaration) check(s *Signature) error {
	if err := d.checkInput(s); err != nil {
		return err
	}
	if d.Outputs.Scores != "" {
		if err := checkLabels("labels", d.Labels, s, d.Outputs.Scores); err != nil {
			return err
		}
	}
	for name, output := range d.Outputs.More {
		if s.Output(output.Tensor) < 0 {
			return fmt.Errorf("%s: outputs.more.%s.tensor names %q, which signature %q does not have", DeclarationFile, name, output.Tensor, s.Name)
		}
		if err := checkLabels("outputs.more."+name+".labels", output.Labels, s, output.Tensor); err != nil {
			return err
		}
	}
	return nil
}

// checkLabels: as many labels as a row has numbers.
func checkLabels(field string, labels []string, s *Signature, alias string) error {
	output := s.Output(alias)
	if len(labels) == 0 || output < 0 {
		return nil
	}
	info := &s.Outputs[output]
	if info.Type != tensor.Float32 || !info.Known || len(info.Dims) != 2 || info.Dims[1] >= 0 && info.Dims[1] != int64(len(labels)) {
		return fmt.Errorf("%s: %s has %d labels, which output %q, %v %s, has no scores for", DeclarationFile, field, len(labels), alias, info.Type, info.Shape())
	}
	return nil
}

// checkInput: what pictures become is what the input takes. An input of rank 2 takes a picture's numbers one after the other.
func (d *Declaration) checkInput(s *Signature) error {
	how := d.Input.Preprocess
	if how == nil {
		return nil
	}
	input := s.Input(d.Input.Tensor)
	if input < 0 {
		return fmt.Errorf("%s: input.tensor is missing: which input are pictures for?", DeclarationFile)
	}
	info := &s.Inputs[input]
	dims := how.Dims()
	fits := info.Type == how.Type() && info.Known && len(info.Dims) > 0 && info.Dims[0] < 0
	switch {
	case !fits:
	case len(info.Dims) == 2:
		fits = info.Dims[1] < 0 || info.Dims[1] == tensor.Elements(dims)
	case len(info.Dims) == 3 && how.Channels() == 1: // grayscale without a dimension for its one channel
		fits = agree(info.Dims[1:], []int64{int64(how.Height), int64(how.Width)})
	default:
		fits = agree(info.Dims[1:], dims)
	}
	if !fits {
		return fmt.Errorf("%s: input.preprocess makes %v %s; input %q takes %v %s", DeclarationFile,
			how.Type(), tensor.ShapeText(append([]int64{-1}, dims...), true), info.Alias, info.Type, info.Shape())
	}
	return nil
}

// agree says whether dims, of which some may be free, can be these.
func agree(dims, these []int64) bool {
	return slices.EqualFunc(dims, these, func(a, b int64) bool { return a < 0 || a == b })
}
