// Package testmodels finds the real models that tests run on.
//
// They are built by `python -m backends.models.digits`; `python -m backends.build --test` says where they are. A test that needs them
// is skipped, with the command to run, only if they are not there at all.
package testmodels

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// Variable names the directory of the models, if it is not build/models of the working tree.
const Variable = "SLUICEGATE_MODELS"

// Directory is where the models are.
func Directory(t testing.TB) string {
	t.Helper()
	directory := os.Getenv(Variable)
	if directory == "" {
		_, here, _, _ := runtime.Caller(0)
		directory = filepath.Join(filepath.Dir(here), "../../../../build/models")
	}
	if _, err := os.Stat(filepath.Join(directory, "digits/2/saved_model.pb")); err != nil {
		t.Skipf("no models in %s: run 'python -m backends.models.digits' first", directory)
	}
	return directory
}

// ProbesVariable names the directory of the probes, if it is not build/probes of the working tree.
const ProbesVariable = "SLUICEGATE_PROBES"

// Probes is where the small models are that python -m backends.models.probes exports: strings, types, iris, iris-width.
func Probes(t testing.TB) string {
	t.Helper()
	directory := os.Getenv(ProbesVariable)
	if directory == "" {
		_, here, _, _ := runtime.Caller(0)
		directory = filepath.Join(filepath.Dir(here), "../../../../build/probes")
	}
	if _, err := os.Stat(filepath.Join(directory, "probes.stamp")); err != nil {
		t.Skipf("no models in %s: run 'python -m backends.models.probes' first", directory)
	}
	return directory
}

// Flowers are examples that no iris model was trained on, and what is known of them.
type Flowers struct {
	Examples []json.RawMessage `json:"examples"` // raw: 5.0 must not become 5, which is another kind of feature
	Labels   []string          `json:"labels"`
	Widths   []float64         `json:"widths"`
	Accuracy float64           `json:"accuracy"` // as measured when the models were made
	Error    float64           `json:"error"`    // of the petal width, root mean square
}

// Iris reads the held-out flowers.
func Iris(t testing.TB) (flowers Flowers) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(Probes(t), "iris/heldout.json"))
	if err == nil {
		err = json.Unmarshal(content, &flowers)
	}
	if err != nil {
		t.Fatal(err)
	}
	return flowers
}

// HeldOut is data that no model was trained on.
type HeldOut struct {
	Instances [][]float32 `json:"instances"`
	Labels    []int64     `json:"labels"`
}

// Digits reads the held-out digits.
func Digits(t testing.TB) HeldOut {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(Directory(t), "digits/heldout.json"))
	if err != nil {
		t.Fatal(err)
	}
	var heldout HeldOut
	if err := json.Unmarshal(content, &heldout); err != nil {
		t.Fatal(err)
	}
	return heldout
}

// Pictures are the pictures of held-out digits, with the label that is in each name (digit-LABEL-N.png).
func Pictures(t testing.TB) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(Directory(t), "../pictures/digit-*.png"))
	if err != nil || len(files) == 0 {
		t.Skipf("no pictures beside %s: run 'python -m backends.models.digits' first", Directory(t))
	}
	labels := map[string]string{}
	for _, file := range files {
		labels[file] = filepath.Base(file)[len("digit-"):][:1]
	}
	return labels
}
