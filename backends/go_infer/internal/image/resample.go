package image

import (
	"math"
	"slices"
)

// tap is which source pixels one pixel of the tensor is made of, along one axis: weights of the pixels from first on. They add up to cover,
// which is less than 1 where the tensor's pixel lies partly or wholly outside the picture.
type tap struct {
	first   int
	weights []float32
	cover   float32
}

// kernel is a resampling filter: its weight at a distance in pixels, and from which distance on that is zero.
type kernel struct {
	reach  float64
	weight func(distance float64) float64
}

var kernels = map[string]kernel{
	"bilinear": {1, func(x float64) float64 { return math.Max(0, 1-math.Abs(x)) }},
	"bicubic":  {2, keys},
}

// keys is the cubic convolution kernel with a = -0.5 (Keys, 1981), as in Pillow and TensorFlow.
func keys(x float64) float64 {
	const a = -.5
	switch x = math.Abs(x); {
	case x < 1:
		return ((a+2)*x-(a+3))*x*x + 1
	case x < 2:
		return (((x-5)*x+8)*x - 4) * a
	}
	return 0
}

// axis is one dimension of the picture and of the tensor.
type axis struct {
	source, target int
	left, length   float64 // of the part of the source that becomes the whole target
	beyond         bool    // what lies outside the source is background; else the nearest pixels count instead
}

// taps are those of every target pixel. Pixel i's area is [i, i+1).
func (a axis) taps(how *Preprocess) []tap {
	all := make([]tap, a.target)
	step := a.length / float64(a.target)
	for i := range all {
		low := a.left + float64(i)*step
		switch how.Resize {
		case "nearest":
			all[i] = a.nearest(low + step/2)
		case "area":
			all[i] = a.tap(low, low+step, func(pixel float64) float64 {
				return math.Min(low+step, pixel+1) - math.Max(low, pixel)
			})
		default:
			k, stretch := kernels[how.Resize], 1.
			if how.Antialias {
				stretch = math.Max(1, step)
			}
			centre := low + step/2
			all[i] = a.tap(centre-k.reach*stretch, centre+k.reach*stretch, func(pixel float64) float64 {
				return k.weight((pixel + .5 - centre) / stretch)
			})
		}
	}
	return all
}

func (a axis) nearest(at float64) tap {
	pixel := int(math.Floor(at))
	if a.beyond && (pixel < 0 || pixel >= a.source) {
		return tap{}
	}
	return tap{min(max(pixel, 0), a.source-1), []float32{1}, 1}
}

// tap weighs every pixel that [low, high) touches.
func (a axis) tap(low, high float64, weight func(pixel float64) float64) tap {
	first, end := int(math.Floor(low)), int(math.Ceil(high))
	inside, total := 0., 0.
	t := tap{first: max(first, 0)}
	var weights []float64
	for pixel := first; pixel < end; pixel++ {
		w := weight(float64(pixel))
		total += w
		if pixel >= 0 && pixel < a.source {
			weights = append(weights, w)
			inside += w
		}
	}
	if !a.beyond {
		total = inside
	}
	if total == 0 || inside == 0 {
		return tap{}
	}
	for _, w := range weights {
		t.weights = append(t.weights, float32(w/total))
	}
	t.cover = float32(inside / total)
	return t
}

// flip mirrors the source: taps for the pixels counted from the other end.
func flip(taps []tap, source int) []tap {
	slices.Reverse(taps)
	for i := range taps {
		slices.Reverse(taps[i].weights)
		taps[i].first = source - taps[i].first - len(taps[i].weights)
	}
	return taps
}

// fit lays the picture, upright width x height, into the tensor: the axes across and down.
func fit(width, height int, how *Preprocess) (across, down []tap) {
	x := axis{source: width, target: how.Width, length: float64(width)}
	y := axis{source: height, target: how.Height, length: float64(height)}
	aspect := float64(how.Width) / float64(how.Height)
	switch how.Fit {
	case Crop:
		x.length = math.Min(x.length, y.length*aspect)
		y.length = x.length / aspect
		x.frame(x.length * how.CropFraction)
		y.frame(y.length * how.CropFraction)
	case Pad:
		x.length = math.Max(x.length, y.length*aspect)
		y.length = x.length / aspect
		x.frame(x.length)
		y.frame(y.length)
		x.beyond, y.beyond = true, true
	case Letterbox:
		if shape := float64(width) / float64(height); shape > aspect {
			return x.taps(how), y.letterbox(float64(how.Width)/shape, how)
		} else if shape < aspect {
			return x.letterbox(float64(how.Height)*shape, how), y.taps(how)
		}
	}
	return x.taps(how), y.taps(how)
}

// frame makes a part of this length, in the middle of the source, the whole target.
func (a *axis) frame(length float64) { a.left, a.length = (float64(a.source)-length)/2, length }

// letterbox fits the source into this many target pixels, whole ones, in the middle. Halves are rounded to even numbers, as Python does.
func (a axis) letterbox(length float64, how *Preprocess) []tap {
	inner := min(max(int(math.RoundToEven(length)), 1), a.target)
	all := make([]tap, a.target)
	start := int(math.RoundToEven(float64(a.target-inner) / 2))
	a.target = inner
	copy(all[start:], a.taps(how))
	return all
}
