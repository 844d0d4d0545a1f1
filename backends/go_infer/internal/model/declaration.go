package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// DeclarationFile is where a version says what its tensors mean. It is optional; without it the model serves tensors only.
const DeclarationFile = "assets.extra/sluicegate.json"

// Declaration is what a model says about itself that its graph cannot: how a picture becomes its input, what its outputs mean.
type Declaration struct {
	Description string `json:"description"`
	Signature   string `json:"signature"`
	Input       struct {
		Tensor     string     `json:"tensor"`
		Preprocess Preprocess `json:"preprocess"`
	} `json:"input"`
	Outputs struct {
		Label  string `json:"label"`
		Scores string `json:"scores"`
	} `json:"outputs"`
	Labels  []string `json:"labels"`
	HeldOut struct {
		Accuracy float64 `json:"accuracy"`
		Examples int     `json:"examples"`
	} `json:"heldout"`
}

// Preprocess is how a picture becomes the input tensor.
type Preprocess struct {
	Width  int        `json:"width"`
	Height int        `json:"height"`
	Color  string     `json:"color"`  // "grayscale"
	Range  [2]float64 `json:"range"`  // what black and white become
	Resize string     `json:"resize"` // "area"
	Fit    string     `json:"fit"`    // "pad": keep the aspect, pad with the background; "stretch"
	Ink    string     `json:"ink"`    // "bright": the model wants bright strokes on a dark ground; "dark": the reverse
	Invert string     `json:"invert"` // "auto": look at the picture's border; "never"
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
		return nil, fmt.Errorf("%s: %w", DeclarationFile, err)
	}
	return declared, declared.check()
}

// check refuses what this server would otherwise do wrongly and silently.
func (d *Declaration) check() error {
	p := &d.Input.Preprocess
	if *p == (Preprocess{}) {
		return nil // tensors only
	}
	for _, field := range []struct {
		name, value string
		allowed     []string
	}{
		{"color", p.Color, []string{"grayscale"}},
		{"resize", p.Resize, []string{"area"}},
		{"fit", p.Fit, []string{"pad", "stretch"}},
		{"ink", p.Ink, []string{"bright", "dark"}},
		{"invert", p.Invert, []string{"auto", "never"}},
	} {
		known := false
		for _, allowed := range field.allowed {
			known = known || field.value == allowed
		}
		if !known {
			return fmt.Errorf("%s: input.preprocess.%s is %q; this server knows %q", DeclarationFile, field.name, field.value, field.allowed)
		}
	}
	if p.Width < 1 || p.Height < 1 || p.Width > 4096 || p.Height > 4096 {
		return fmt.Errorf("%s: input.preprocess is %dx%d; both must be 1..4096", DeclarationFile, p.Width, p.Height)
	}
	return nil
}
