// Package image turns a picture into a model's input tensor by the model's declared preprocessing.
//
// Contract: Decode refuses what is not a picture, or too large a one, before it allocates anything for it; Plane is its brightness;
// Write resizes by averaging areas and scales to the model's range.
// The steps are pure functions of bytes, so that they can be tested, and later served, on their own.
package image

import (
	"bytes"
	"errors"
	stdimage "image"
	"image/color"
	"image/jpeg"
	"image/png"

	"sluicegate/go_infer/internal/status"
)

// Plane is the brightness of a picture, 0 black to 255 white, row by row.
type Plane struct {
	Width, Height int
	Pixels        []uint8
}

type format struct {
	magic  string
	name   string
	config func(*bytes.Reader) (stdimage.Config, error)
	decode func(*bytes.Reader) (stdimage.Image, error)
}

var formats = []format{
	{"\x89PNG\r\n\x1a\n", "PNG",
		func(r *bytes.Reader) (stdimage.Config, error) { return png.DecodeConfig(r) },
		func(r *bytes.Reader) (stdimage.Image, error) { return png.Decode(r) }},
	{"\xff\xd8\xff", "JPEG",
		func(r *bytes.Reader) (stdimage.Config, error) { return jpeg.DecodeConfig(r) },
		func(r *bytes.Reader) (stdimage.Image, error) { return jpeg.Decode(r) }},
}

// Decode reads a PNG or JPEG of at most maxPixels.
func Decode(content []byte, maxPixels int) (*Plane, error) {
	if len(content) == 0 {
		return nil, status.Errorf(status.InvalidArgument, "the image is empty; send a PNG or JPEG")
	}
	for i := range formats {
		f := &formats[i]
		if !bytes.HasPrefix(content, []byte(f.magic)) {
			continue
		}
		config, err := f.config(bytes.NewReader(content))
		if err != nil {
			return nil, broken(f.name, err)
		}
		if config.Width < 1 || config.Height < 1 || config.Width > maxPixels/config.Height {
			return nil, status.Errorf(status.InvalidArgument, "the image is %dx%d; at most %d pixels are accepted", config.Width, config.Height, maxPixels)
		}
		picture, err := f.decode(bytes.NewReader(content))
		if err != nil {
			return nil, broken(f.name, err)
		}
		return brightness(picture), nil
	}
	shown := content[:min(len(content), 8)]
	return nil, &status.Error{Code: status.InvalidArgument, HTTP: 415,
		Message: status.Errorf(0, "the body is neither a PNG nor a JPEG; it begins with %q", shown).Message}
}

func broken(name string, err error) error {
	var unsupported png.UnsupportedError
	if errors.As(err, &unsupported) {
		return status.Errorf(status.InvalidArgument, "the image is a %s of a kind that is not supported: %v", name, err)
	}
	return status.Errorf(status.InvalidArgument, "the image begins as a %s but cannot be decoded: %v", name, err)
}

// brightness is the picture's luma (Rec. 601, as JPEG has it); what is transparent counts as white paper.
func brightness(picture stdimage.Image) *Plane {
	bounds := picture.Bounds()
	p := &Plane{Width: bounds.Dx(), Height: bounds.Dy()}
	p.Pixels = make([]uint8, p.Width*p.Height)
	for y := range p.Height {
		row := p.Pixels[y*p.Width : (y+1)*p.Width]
		switch source := picture.(type) {
		case *stdimage.Gray:
			copy(row, source.Pix[y*source.Stride:])
		case *stdimage.YCbCr:
			copy(row, source.Y[y*source.YStride:])
		default:
			for x := range row {
				row[x] = luma(picture.At(bounds.Min.X+x, bounds.Min.Y+y))
			}
		}
	}
	return p
}

func luma(c color.Color) uint8 {
	r, g, b, a := c.RGBA() // premultiplied, 0..65535
	paper := 0xffff - a
	return uint8((299*(r+paper) + 587*(g+paper) + 114*(b+paper) + 500) / 1000 >> 8)
}
