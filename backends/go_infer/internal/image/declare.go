package image

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/url"
	"slices"
	"strings"

	"sluicegate/go_infer/internal/tensor"
)

const (
	maxSide = 4096
	half    = tensor.DType(19) // DT_HALF
)

// Preprocess is how a picture becomes one row of a tensor. A model declares it, or a request.
//
// Every pixel is a number 0..255 in each channel until it is stored: (from 0..255 to Range - Mean) * Scale.
type Preprocess struct {
	Width, Height int        // of the tensor, 1..4096; required
	Color         string     // "grayscale" (Rec. 601 luma), "rgb", "bgr"; required
	Resize        string     // "bilinear" (the default), "area", "bicubic" (a = -0.5), "nearest"
	Antialias     bool       // bilinear and bicubic look at every pixel when they shrink, as Pillow's do; else as TensorFlow's and OpenCV's
	Fit           string     // how another aspect is fitted, see the constants; "stretch" is the default
	CropFraction  float64    // with "crop": the part of the largest centred frame that is kept; 1 is the default
	Pad           []float64  // colour around the picture, 0..255 per channel; black is the default
	Background    []float64  // colour seen through transparent pixels, 0..255 per channel; white is the default
	Range         [2]float64 // what 0 and 255 become; [0, 255] is the default
	Mean          []float64  // per channel, subtracted after Range; 0 is the default
	Scale         []float64  // per channel, multiplied after Mean; 1 is the default
	Layout        string     // "NHWC" (the default), "NCHW"
	DType         string     // "float32" (the default), "uint8" (rounded), "float16"
	Orientation   string     // "exif" (the default): upright as the file's EXIF says; "stored"
	Ink           string     // "bright": the model wants bright strokes on a dark ground; "dark": the reverse; grayscale only
	Invert        string     // with Ink: "auto" (the default) looks at the picture's border; "never"
}

// The ways to fit a picture into a tensor of another aspect.
const (
	Stretch   = "stretch"   // the whole picture becomes the whole tensor
	Crop      = "crop"      // the largest centred frame with the tensor's aspect, as Pillow's ImageOps.fit
	Letterbox = "letterbox" // the whole picture, in whole pixels of the tensor, amid Pad, as Pillow's ImageOps.pad
	Pad       = "pad"       // the whole picture, centred to fractions of a pixel, amid Pad or, with Ink, its own background
)

// words are the fields that name one of several ways, and the ways.
var words = map[string][]string{
	"color":       {"grayscale", "rgb", "bgr"},
	"resize":      {"bilinear", "area", "bicubic", "nearest"},
	"fit":         {Stretch, Crop, Letterbox, Pad},
	"layout":      {"NHWC", "NCHW"},
	"dtype":       {"float32", "uint8", "float16"},
	"orientation": {"exif", "stored"},
	"ink":         {"bright", "dark"},
	"invert":      {"auto", "never"},
}

// fields are where each JSON member goes.
var fields = map[string]func(*Preprocess) any{
	"width":         func(p *Preprocess) any { return &p.Width },
	"height":        func(p *Preprocess) any { return &p.Height },
	"color":         func(p *Preprocess) any { return &p.Color },
	"resize":        func(p *Preprocess) any { return &p.Resize },
	"antialias":     func(p *Preprocess) any { return &p.Antialias },
	"fit":           func(p *Preprocess) any { return &p.Fit },
	"crop_fraction": func(p *Preprocess) any { return &p.CropFraction },
	"pad":           func(p *Preprocess) any { return &p.Pad },
	"background":    func(p *Preprocess) any { return &p.Background },
	"range":         func(p *Preprocess) any { return &p.Range },
	"mean":          func(p *Preprocess) any { return &p.Mean },
	"scale":         func(p *Preprocess) any { return &p.Scale },
	"layout":        func(p *Preprocess) any { return &p.Layout },
	"dtype":         func(p *Preprocess) any { return &p.DType },
	"orientation":   func(p *Preprocess) any { return &p.Orientation },
	"ink":           func(p *Preprocess) any { return &p.Ink },
	"invert":        func(p *Preprocess) any { return &p.Invert },
}

// DeclarationError is a mistake in a declaration. Field is the JSON path below the declaration itself, for instance "mean[1]", empty for
// the whole.
type DeclarationError struct{ Field, Text string }

func (e *DeclarationError) Error() string {
	if e.Field == "" {
		return "preprocess " + e.Text
	}
	return "preprocess." + e.Field + " " + e.Text
}

func wrong(field, format string, arguments ...any) error {
	return &DeclarationError{field, fmt.Sprintf(format, arguments...)}
}

// UnmarshalJSON reads and checks a declaration; an error of its content is a *DeclarationError.
func (p *Preprocess) UnmarshalJSON(text []byte) error {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(text, &object); err != nil || object == nil {
		return wrong("", "is no JSON object")
	}
	return p.read(object)
}

// FromQuery reads a declaration from a URL's query: width=224&height=224&color=rgb&range=0,1. Parameters in others are not its own;
// nil without an error if the query declares nothing.
func FromQuery(query url.Values, others ...string) (*Preprocess, error) {
	object := map[string]json.RawMessage{}
	for name, values := range query {
		field, known := fields[name]
		if !known {
			if slices.Contains(others, name) {
				continue
			}
			return nil, wrong(name, "is no parameter of preprocessing; there are %s", names())
		}
		text := values[len(values)-1]
		switch field(&Preprocess{}).(type) {
		case *string:
			quoted, _ := json.Marshal(text)
			object[name] = quoted
		case *[]float64, *[2]float64:
			object[name] = json.RawMessage("[" + text + "]")
		default:
			object[name] = json.RawMessage(text)
		}
	}
	if len(object) == 0 {
		return nil, nil
	}
	p := &Preprocess{}
	return p, p.read(object)
}

func names() string {
	return strings.Join(slices.Sorted(maps.Keys(fields)), ", ")
}

func (p *Preprocess) read(object map[string]json.RawMessage) error {
	*p = Preprocess{Resize: "bilinear", Fit: Stretch, CropFraction: 1, Layout: "NHWC", DType: "float32", Orientation: "exif", Invert: "auto"}
	for _, name := range slices.Sorted(maps.Keys(object)) { // sorted, so that of several mistakes always the same is told
		field, known := fields[name]
		if !known {
			return wrong(name, "is not known; there are %s", names())
		}
		if err := set(field(p), name, object[name]); err != nil {
			return err
		}
	}
	has := func(name string) bool { _, given := object[name]; return given }
	return p.check(has)
}

// set gives one field its JSON value.
func set(field any, name string, value json.RawMessage) error {
	if string(value) == "null" {
		return wrong(name, "is null; leave it out instead")
	}
	kinds := ""
	switch field := field.(type) {
	case *int:
		kinds = "a whole number"
	case *bool:
		kinds = "true or false"
	case *float64:
		kinds = "a number"
	case *string:
		kinds = fmt.Sprintf("one of %q", words[name])
	case *[2]float64:
		var numbers []float64
		if json.Unmarshal(value, &numbers) != nil || len(numbers) != 2 {
			return wrong(name, "is %s; it must be a list of two numbers", shown(value))
		}
		copy(field[:], numbers)
		return nil
	case *[]float64:
		var one float64
		if json.Unmarshal(value, &one) == nil {
			*field = []float64{one}
			return nil
		}
		kinds = "a number, or a list of one for each channel"
	}
	if json.Unmarshal(value, field) != nil {
		return wrong(name, "is %s; it must be %s", shown(value), kinds)
	}
	return nil
}

func shown(value json.RawMessage) string {
	if len(value) > 64 {
		return string(value[:64]) + "..."
	}
	return string(value)
}

// check refuses what would otherwise be done wrongly and silently, and spreads single numbers over the channels.
func (p *Preprocess) check(has func(string) bool) error {
	for _, name := range []string{"width", "height", "color"} {
		if !has(name) {
			return wrong(name, "is missing")
		}
	}
	for _, side := range []string{"width", "height"} {
		if value := *fields[side](p).(*int); value < 1 || value > maxSide {
			return wrong(side, "is %d; it must be 1..%d", value, maxSide)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(words)) {
		allowed := words[name]
		if value := *fields[name](p).(*string); has(name) && !slices.Contains(allowed, value) {
			return wrong(name, "is %q; it must be one of %q", value, allowed)
		}
	}
	switch {
	case has("antialias") && p.Antialias && p.Resize != "bilinear" && p.Resize != "bicubic":
		return wrong("antialias", "has no meaning with \"resize\": %q", p.Resize)
	case has("crop_fraction") && p.Fit != Crop:
		return wrong("crop_fraction", "has no meaning with \"fit\": %q", p.Fit)
	case !(p.CropFraction > 0 && p.CropFraction <= 1):
		return wrong("crop_fraction", "is %v; it must be above 0 and at most 1", p.CropFraction)
	case has("pad") && (p.Fit != Letterbox && p.Fit != Pad || p.Ink != ""):
		return wrong("pad", "has no meaning unless \"fit\" is %q or %q without ink", Letterbox, Pad)
	case p.Ink != "" && p.Color != "grayscale":
		return wrong("ink", "is for grayscale only; color is %q", p.Color)
	case p.Ink == "" && has("invert"):
		return wrong("invert", "has no meaning without ink")
	case !has("range") && !has("mean") && !has("scale") && p.DType != "uint8":
		return wrong("range", "is missing: say what black and white become, for instance [0, 1], or give mean and scale")
	}
	if !has("range") {
		p.Range = [2]float64{0, 255}
	}
	for i, value := range p.Range {
		if !finite(value) {
			return wrong(fmt.Sprintf("range[%d]", i), "is %v; it must fit a float32", value)
		}
	}
	return p.spread()
}

func finite(value float64) bool { return math.Abs(value) <= math.MaxFloat32 }

// spread checks the values per channel and gives every channel its own.
func (p *Preprocess) spread() error {
	channels := p.Channels()
	for _, list := range []struct {
		name    string
		values  *[]float64
		initial float64
		pixel   bool // 0..255
	}{{"pad", &p.Pad, 0, true}, {"background", &p.Background, 255, true}, {"mean", &p.Mean, 0, false}, {"scale", &p.Scale, 1, false}} {
		switch n := len(*list.values); {
		case n == 0:
			*list.values = slices.Repeat([]float64{list.initial}, channels)
		case n == 1:
			*list.values = slices.Repeat(*list.values, channels)
		case n != channels:
			return wrong(list.name, "has %d numbers; %s has %d channels", n, p.Color, channels)
		}
		for i, value := range *list.values {
			switch {
			case list.pixel && !(value >= 0 && value <= 255):
				return wrong(fmt.Sprintf("%s[%d]", list.name, i), "is %v; colours are 0..255", value)
			case !finite(value):
				return wrong(fmt.Sprintf("%s[%d]", list.name, i), "is %v; it must fit a float32", value)
			}
		}
	}
	return nil
}

// Channels is 1 for grayscale, else 3.
func (p *Preprocess) Channels() int {
	if p.Color == "grayscale" {
		return 1
	}
	return 3
}

// Dims is the shape of one picture's row: height, width, channels in the order of the layout.
func (p *Preprocess) Dims() []int64 {
	h, w, c := int64(p.Height), int64(p.Width), int64(p.Channels())
	if p.Layout == "NCHW" {
		return []int64{c, h, w}
	}
	return []int64{h, w, c}
}

// Type is the tensor's element type.
func (p *Preprocess) Type() tensor.DType {
	switch p.DType {
	case "uint8":
		return tensor.Uint8
	case "float16":
		return half
	}
	return tensor.Float32
}

// Size is the bytes of one picture's row.
func (p *Preprocess) Size() int {
	return p.Width * p.Height * p.Channels() * map[string]int{"float32": 4, "uint8": 1, "float16": 2}[p.DType]
}
