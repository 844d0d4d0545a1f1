package image

import (
	stdimage "image"
	"image/color"
)

// rows gives the canvas of a picture row by row, as it is stored, in 1 (luma) or 3 (RGB) interleaved channels of 0..255. One row is all the
// memory it takes.
type rows struct {
	width, height int
	channels      int
	background    [3]int32 // RGB, or luma three times
	read          func(y int, into []uint8)

	left, top int // of the stored picture in the canvas
	inner     stdimage.Rectangle
}

func newRows(p *Picture, how *Preprocess) *rows {
	r := &rows{width: p.Width, height: p.Height, channels: how.Channels(), left: p.left, top: p.top, inner: p.stored.Bounds()}
	for c := range r.background {
		r.background[c] = int32(how.Background[c%r.channels] + .5)
	}
	if how.Color == "bgr" {
		r.background[0], r.background[2] = r.background[2], r.background[0]
	}
	switch stored := p.stored.(type) {
	case *stdimage.Gray:
		r.read = func(y int, into []uint8) { r.gray(stored.Pix[y*stored.Stride:][:r.inner.Dx()], into) }
	case *stdimage.YCbCr:
		r.read = r.ycbcr(stored, p.video)
	case *stdimage.NYCbCrA:
		opaque := r.ycbcr(&stored.YCbCr, p.video)
		r.read = func(y int, into []uint8) {
			opaque(y, into)
			for x, a := range stored.A[y*stored.AStride:][:r.inner.Dx()] {
				for c := range r.channels {
					into[x*r.channels+c] = over(int32(into[x*r.channels+c]), int32(a), r.background[c])
				}
			}
		}
	case *stdimage.NRGBA:
		r.read = func(y int, into []uint8) { r.nrgba(stored.Pix[y*stored.Stride:], into) }
	case *stdimage.RGBA: // what decoders return for pictures without alpha
		if stored.Opaque() {
			r.read = func(y int, into []uint8) { r.nrgba(stored.Pix[y*stored.Stride:], into) }
		} else {
			r.read = r.any(stored)
		}
	case *stdimage.Paletted:
		r.read = r.paletted(stored)
	case stdimage.RGBA64Image:
		r.read = r.any(stored)
	default: // no decoder returns such a one
		r.read = func(y int, into []uint8) {
			for x := range r.inner.Dx() {
				c := color.NRGBAModel.Convert(stored.At(r.inner.Min.X+x, r.inner.Min.Y+y)).(color.NRGBA)
				r.nrgba([]uint8{c.R, c.G, c.B, c.A}, into[x*r.channels:][:r.channels])
			}
		}
	}
	return r
}

// row reads row y of the canvas; what the stored picture does not cover is background.
func (r *rows) row(y int, into []uint8) {
	if r.inner.Dx() == r.width && r.inner.Dy() == r.height {
		r.read(y, into)
		return
	}
	for i := range into {
		into[i] = uint8(r.background[i%r.channels])
	}
	if y -= r.top; y >= 0 && y < r.inner.Dy() {
		r.read(y, into[r.left*r.channels:][:r.inner.Dx()*r.channels])
	}
}

// over is a channel seen through alpha.
func over(value, alpha, background int32) uint8 {
	return uint8((value*alpha + background*(255-alpha) + 127) / 255)
}

// luma is Rec. 601's, in the integers that Pillow and libjpeg use.
func luma(r, g, b int32) uint8 { return uint8((19595*r + 38470*g + 7471*b + 1<<15) >> 16) }

func (r *rows) gray(from, into []uint8) {
	if r.channels == 1 {
		copy(into, from)
		return
	}
	for x, value := range from {
		into[3*x], into[3*x+1], into[3*x+2] = value, value, value
	}
}

// nrgba reads pixels of 4 bytes whose colours are not multiplied by alpha.
func (r *rows) nrgba(from, into []uint8) {
	for x := 0; x*r.channels < len(into); x++ {
		pixel := from[4*x : 4*x+4 : 4*x+4]
		r.put(int32(pixel[0]), int32(pixel[1]), int32(pixel[2]), int32(pixel[3]), into[x*r.channels:])
	}
}

func (r *rows) put(red, green, blue, alpha int32, into []uint8) {
	if r.channels == 1 {
		value := luma(red, green, blue)
		if alpha != 255 {
			value = over(int32(value), alpha, r.background[0])
		}
		into[0] = value
		return
	}
	if alpha != 255 {
		into[0], into[1], into[2] = over(red, alpha, r.background[0]), over(green, alpha, r.background[1]), over(blue, alpha, r.background[2])
		return
	}
	into[0], into[1], into[2] = uint8(red), uint8(green), uint8(blue)
}

// paletted looks every index up; one beyond the palette, which a damaged file may hold, is black.
func (r *rows) paletted(stored *stdimage.Paletted) func(int, []uint8) {
	var palette [256][3]uint8
	for i := range palette {
		c := color.NRGBA{A: 255}
		if i < len(stored.Palette) {
			c = color.NRGBAModel.Convert(stored.Palette[i]).(color.NRGBA)
		}
		r.put(int32(c.R), int32(c.G), int32(c.B), int32(c.A), palette[i][:])
	}
	return func(y int, into []uint8) {
		for x, i := range stored.Pix[y*stored.Stride:][:r.inner.Dx()] {
			copy(into[x*r.channels:][:r.channels], palette[i][:])
		}
	}
}

// any reads what has 16 bits a channel, multiplied by alpha; the high byte is kept, as libpng strips it.
func (r *rows) any(stored stdimage.RGBA64Image) func(int, []uint8) {
	return func(y int, into []uint8) {
		for x := range r.inner.Dx() {
			c := stored.RGBA64At(r.inner.Min.X+x, r.inner.Min.Y+y)
			channel := func(value uint16) int32 {
				if c.A == 0 || c.A == 0xffff {
					return int32(value >> 8)
				}
				return int32(min(uint32(value)*0xffff/uint32(c.A), 0xffff) >> 8)
			}
			r.put(channel(c.R), channel(c.G), channel(c.B), int32(c.A>>8), into[x*r.channels:])
		}
	}
}
