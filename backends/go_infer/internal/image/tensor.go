package image

import (
	"encoding/binary"
	"math"
	"sync"
)

// turn is how an EXIF orientation makes a stored picture upright: its rows and columns are counted from the other end, then exchanged.
type turn struct{ transposed, columns, rows bool }

// turns are those of the orientations 1..8 (TIFF 6.0, tag 274).
var turns = [9]turn{
	2: {columns: true},
	3: {columns: true, rows: true},
	4: {rows: true},
	5: {transposed: true},
	6: {transposed: true, rows: true},
	7: {transposed: true, columns: true, rows: true},
	8: {transposed: true, columns: true},
}

// canvas is the memory of one conversion: pixels of the tensor as sums, in the order of the stored picture.
type canvas struct {
	columns, rows []tap
	channels      int
	sums          []float32 // [rows][columns][channels]
	line          []uint8   // a row of the picture
	thin          []float32 // the same, resampled to columns
	border        [256]int  // how often each brightness occurs along the picture's border
}

var canvases = sync.Pool{New: func() any { return &canvas{} }}

// Write makes one row of the tensor, of how.Size() bytes, little-endian. It holds one row of the picture and one tensor as float32.
func (p *Picture) Write(how *Preprocess, into []byte) {
	turned := turn{}
	if how.Orientation == "exif" {
		turned = turns[p.orientation]
	}
	width, height := p.Width, p.Height
	if turned.transposed {
		width, height = height, width
	}
	across, down := fit(width, height, how)
	c := canvases.Get().(*canvas)
	defer canvases.Put(c)
	c.columns, c.rows, c.channels = across, down, how.Channels()
	if turned.transposed {
		c.columns, c.rows = down, across
	}
	if turned.columns {
		c.columns = flip(c.columns, p.Width)
	}
	if turned.rows {
		c.rows = flip(c.rows, p.Height)
	}
	c.resample(newRows(p, how), how.Ink != "")
	c.store(how, turned, into)
}

func sized[T any](old []T, n int) []T {
	if cap(old) < n {
		return make([]T, n)
	}
	return old[:n]
}

// resample goes once over the picture: every row is thinned to the tensor's columns and added to the rows it is part of.
func (c *canvas) resample(source *rows, border bool) {
	c.line = sized(c.line, source.width*c.channels)
	c.thin = sized(c.thin, len(c.columns)*c.channels)
	c.sums = sized(c.sums, len(c.rows)*len(c.thin))
	clear(c.sums)
	clear(c.border[:])
	begin := 0
	for y := range source.height {
		for begin < len(c.rows) && c.rows[begin].first+len(c.rows[begin].weights) <= y {
			begin++
		}
		read := false
		for j := begin; j < len(c.rows) && c.rows[j].first <= y; j++ {
			t := &c.rows[j]
			if y >= t.first+len(t.weights) {
				continue
			}
			if !read {
				source.row(y, c.line)
				c.thinOut()
				read = true
			}
			weight := t.weights[y-t.first]
			sums := c.sums[j*len(c.thin):][:len(c.thin)]
			for k, value := range c.thin {
				sums[k] += weight * value
			}
		}
		if border {
			if !read {
				source.row(y, c.line)
			}
			c.count(y == 0 || y == source.height-1)
		}
	}
}

func (c *canvas) thinOut() {
	if c.channels == 1 {
		for i := range c.columns {
			t := &c.columns[i]
			sum := float32(0)
			for k, value := range c.line[t.first:][:len(t.weights)] {
				sum += t.weights[k] * float32(value)
			}
			c.thin[i] = sum
		}
		return
	}
	for i := range c.columns {
		t := &c.columns[i]
		var red, green, blue float32
		from := c.line[3*t.first:]
		for k, weight := range t.weights {
			pixel := from[3*k : 3*k+3 : 3*k+3]
			red += weight * float32(pixel[0])
			green += weight * float32(pixel[1])
			blue += weight * float32(pixel[2])
		}
		c.thin[3*i], c.thin[3*i+1], c.thin[3*i+2] = red, green, blue
	}
}

// count counts the border pixels of a row: all, or the first and the last.
func (c *canvas) count(whole bool) {
	if whole {
		for _, value := range c.line {
			c.border[value]++
		}
	}
	c.border[c.line[0]]++
	c.border[c.line[len(c.line)-1]]++
}

// ground is the median brightness along the picture's border: strokes may touch the border, but rarely cover half of it.
func (c *canvas) ground() float64 {
	total, seen := 0, 0
	for _, n := range c.border {
		total += n
	}
	for value, n := range c.border {
		if seen += n; 2*seen >= total {
			return float64(value)
		}
	}
	return 255
}

// tint is what becomes of a pixel's channel: value * factor + offset, amid pad.
type tint struct{ factor, offset, pad float64 }

// tints are those of the tensor's channels, in its order.
func (c *canvas) tints(how *Preprocess) (all [3]tint) {
	ground, invert := 0., false
	if how.Ink != "" {
		ground = c.ground()
		invert = how.Invert == "auto" && (ground > 127) == (how.Ink == "bright")
	}
	for channel := range c.channels {
		t := tint{
			factor: (how.Range[1] - how.Range[0]) / 255 * how.Scale[channel],
			offset: (how.Range[0] - how.Mean[channel]) * how.Scale[channel],
			pad:    how.Pad[channel],
		}
		if how.Ink != "" {
			t.pad = ground
		}
		if invert {
			t.factor, t.offset = -t.factor, t.offset+255*t.factor
		}
		all[channel] = t
	}
	return all
}

// store writes the sums as numbers of the tensor, upright and in its layout: every order is a way to step through memory.
func (c *canvas) store(how *Preprocess, turned turn, into []byte) {
	channels := c.channels
	stepX, stepY, stepC := channels, how.Width*channels, 1
	if how.Layout == "NCHW" {
		stepX, stepY, stepC = 1, how.Width, how.Width*how.Height
	}
	start := 0
	if turned.transposed {
		stepX, stepY = stepY, stepX
	}
	if turned.columns {
		start, stepX = start+(len(c.columns)-1)*stepX, -stepX
	}
	if turned.rows {
		start, stepY = start+(len(c.rows)-1)*stepY, -stepY
	}
	tints := c.tints(how)
	put := writers[how.DType]
	for j := range c.rows {
		sums := c.sums[j*len(c.thin):]
		for i := range c.columns {
			outside := 1 - float64(c.rows[j].cover*c.columns[i].cover)
			for k := range channels {
				channel := k
				if how.Color == "bgr" {
					channel = 2 - k
				}
				t := &tints[channel]
				value := float64(sums[i*channels+k])
				if outside != 0 {
					value += outside * t.pad
				}
				value = min(max(value, 0), 255) // a cubic overshoots
				put(into, start+i*stepX+j*stepY+channel*stepC, value*t.factor+t.offset)
			}
		}
	}
}

// writers put element i of the tensor's type.
var writers = map[string]func(into []byte, i int, value float64){
	"float32": func(into []byte, i int, value float64) {
		binary.LittleEndian.PutUint32(into[4*i:], math.Float32bits(float32(value)))
	},
	"float16": func(into []byte, i int, value float64) {
		binary.LittleEndian.PutUint16(into[2*i:], toHalf(float32(value)))
	},
	"uint8": func(into []byte, i int, value float64) { into[i] = uint8(min(max(math.RoundToEven(value), 0), 255)) },
}

// Float is element i of a tensor of floating point numbers that Write made.
func (p *Preprocess) Float(from []byte, i int) float64 {
	if p.DType == "float16" {
		return fromHalf(binary.LittleEndian.Uint16(from[2*i:]))
	}
	return float64(math.Float32frombits(binary.LittleEndian.Uint32(from[4*i:])))
}
