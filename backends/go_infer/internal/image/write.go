package image

import (
	"math"

	"sluicegate/go_infer/internal/model"
)

// Write resizes the picture to the declared size and writes it, scaled to the declared range, into row (row by row).
func Write(p *Plane, how *model.Preprocess, row []float32) {
	ground := p.background()
	frame := p.frame(how)
	invert := how.Invert == "auto" && (ground > 127) == (how.Ink == "bright")
	scale := (how.Range[1] - how.Range[0]) / 255
	for y := range how.Height {
		for x := range how.Width {
			value := p.average(frame, float64(ground), x, y, how.Width, how.Height)
			if invert {
				value = 255 - value
			}
			row[y*how.Width+x] = float32(how.Range[0] + value*scale)
		}
	}
}

// background is the median brightness along the picture's border: strokes may touch the border, but rarely cover half of it.
func (p *Plane) background() uint8 {
	var histogram [256]int
	total := 0
	count := func(x, y int) {
		histogram[p.Pixels[y*p.Width+x]]++
		total++
	}
	for x := range p.Width {
		count(x, 0)
		count(x, p.Height-1)
	}
	for y := range p.Height {
		count(0, y)
		count(p.Width-1, y)
	}
	seen := 0
	for value, n := range histogram {
		if seen += n; 2*seen >= total {
			return uint8(value)
		}
	}
	return 255
}

// frame is the part of the plane, in pixels, that becomes the whole input. With "pad" it has the input's aspect and may reach beyond
// the picture; what lies outside is background.
type frame struct{ left, top, width, height float64 }

func (p *Plane) frame(how *model.Preprocess) frame {
	f := frame{0, 0, float64(p.Width), float64(p.Height)}
	if how.Fit != "pad" {
		return f
	}
	aspect := float64(how.Width) / float64(how.Height)
	f.width = math.Max(f.width, f.height*aspect)
	f.height = f.width / aspect
	f.left = (float64(p.Width) - f.width) / 2
	f.top = (float64(p.Height) - f.height) / 2
	return f
}

// average is the mean brightness of the area of the frame that becomes cell (x, y) of a columns x rows input. Pixels that are only
// partly inside count by the part that is.
func (p *Plane) average(f frame, ground float64, x, y, columns, rows int) float64 {
	left, right := f.left+f.width*float64(x)/float64(columns), f.left+f.width*float64(x+1)/float64(columns)
	top, bottom := f.top+f.height*float64(y)/float64(rows), f.top+f.height*float64(y+1)/float64(rows)
	area := (right - left) * (bottom - top)
	sum, covered := 0.0, 0.0
	for row := max(0, int(top)); row < p.Height && float64(row) < bottom; row++ {
		tall := math.Min(bottom, float64(row+1)) - math.Max(top, float64(row))
		line := p.Pixels[row*p.Width : (row+1)*p.Width]
		for column := max(0, int(left)); column < p.Width && float64(column) < right; column++ {
			part := tall * (math.Min(right, float64(column+1)) - math.Max(left, float64(column)))
			if part > 0 {
				sum += part * float64(line[column])
				covered += part
			}
		}
	}
	return (sum + (area-covered)*ground) / area
}
