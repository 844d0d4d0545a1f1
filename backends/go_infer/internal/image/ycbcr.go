package image

import stdimage "image"

// ycbcr reads luma and chroma. Chroma with half the columns or rows is interpolated by a triangle (3/4 the nearest sample, 1/4 the next),
// as libjpeg, libwebp, TensorFlow and Pillow do; Go's own conversion repeats samples, which shows at coloured edges.
// video says that the samples are in video range (luma 16..235), as those of WebP are; JPEG's fill 0..255 (JFIF 1.02, page 3).
func (r *rows) ycbcr(stored *stdimage.YCbCr, video bool) func(int, []uint8) {
	if r.channels == 1 {
		return func(y int, into []uint8) {
			from := stored.Y[y*stored.YStride:][:r.inner.Dx()]
			copy(into, from)
			if video {
				for x, value := range from {
					into[x] = clamp((int32(value)*76309 - 16*76309 + 1<<15) >> 16)
				}
			}
		}
	}
	chroma := newChroma(stored)
	convert := full
	if video {
		convert = studio
	}
	return func(y int, into []uint8) {
		cb, cr := chroma.row(stored.Cb, y, 0), chroma.row(stored.Cr, y, 1)
		for x, luma := range stored.Y[y*stored.YStride:][:r.inner.Dx()] {
			convert(int32(luma), int32(cb[x])-128, int32(cr[x])-128, into[3*x:3*x+3:3*x+3])
		}
	}
}

// full is JFIF's conversion in 16 bits of fraction: 1.402, 0.344136, 0.714136, 1.772.
func full(y, cb, cr int32, into []uint8) {
	y = y<<16 + 1<<15
	into[0] = clamp((y + 91881*cr) >> 16)
	into[1] = clamp((y - 22554*cb - 46802*cr) >> 16)
	into[2] = clamp((y + 116130*cb) >> 16)
}

// studio is BT.601's conversion from video range in 16 bits of fraction: 1.164, 1.596, 0.392, 0.813, 2.017.
func studio(y, cb, cr int32, into []uint8) {
	y = (y-16)*76309 + 1<<15
	into[0] = clamp((y + 104597*cr) >> 16)
	into[1] = clamp((y - 25675*cb - 53279*cr) >> 16)
	into[2] = clamp((y + 132201*cb) >> 16)
}

func clamp(value int32) uint8 { return uint8(min(max(value, 0), 255)) }

// chroma brings rows of chroma samples to the width of the picture.
type chroma struct {
	stored        *stdimage.YCbCr
	width, height int // of the picture
	across, down  int // pixels per sample
	columns, rows int // samples
	sums          []int32
	out           [2][]uint8
}

func newChroma(stored *stdimage.YCbCr) *chroma {
	c := &chroma{stored: stored, width: stored.Rect.Dx(), height: stored.Rect.Dy(), across: 1, down: 1}
	switch stored.SubsampleRatio {
	case stdimage.YCbCrSubsampleRatio422:
		c.across = 2
	case stdimage.YCbCrSubsampleRatio420:
		c.across, c.down = 2, 2
	case stdimage.YCbCrSubsampleRatio440:
		c.down = 2
	case stdimage.YCbCrSubsampleRatio411:
		c.across = 4
	case stdimage.YCbCrSubsampleRatio410:
		c.across, c.down = 4, 2
	}
	c.columns, c.rows = (c.width+c.across-1)/c.across, (c.height+c.down-1)/c.down
	c.sums = make([]int32, c.columns)
	for i := range c.out {
		c.out[i] = make([]uint8, c.columns*c.across)
	}
	return c
}

// row is row y of the picture; it is valid until the next call with the same number.
func (c *chroma) row(samples []uint8, y, number int) []uint8 {
	line := func(i int) []uint8 { return samples[i*c.stored.CStride:][:c.columns] }
	if c.across == 1 && c.down == 1 {
		return line(y)
	}
	// sums are the column's samples, four times (or once, if rows are not subsampled): 3/4 of this row's, 1/4 of the nearer neighbour's.
	weight := int32(1)
	near := line(y / c.down)
	if c.down == 2 {
		weight = 4
		next := line(min(max(y/2-1+2*(y&1), 0), c.rows-1))
		for i, value := range near {
			c.sums[i] = 3*int32(value) + int32(next[i])
		}
	} else {
		for i, value := range near {
			c.sums[i] = int32(value)
		}
	}
	out := c.out[number]
	switch c.across {
	case 1:
		for i, sum := range c.sums {
			out[i] = uint8((sum + 1 + int32(y&1)) >> 2)
		}
	case 2:
		shift, low, high := 2, int32(1), int32(2)
		if weight == 4 {
			shift, low, high = 4, 8, 7
		}
		last := len(c.sums) - 1
		for i, sum := range c.sums {
			before, after := c.sums[max(i-1, 0)], c.sums[min(i+1, last)]
			out[2*i] = uint8((3*sum + before + low) >> shift)
			out[2*i+1] = uint8((3*sum + after + high) >> shift)
		}
	default: // rare: repeated, as libjpeg does
		for i := range out {
			out[i] = uint8(c.sums[i/c.across] / weight)
		}
	}
	return out
}
