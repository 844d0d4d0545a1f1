// Package image turns pictures into rows of a model's input tensor, by the preprocessing that a model or a request declares.
//
// Contract: Decode refuses what is not a picture, or too large a one, before it takes memory for it; Picture.Write resizes and scales it;
// both are functions of bytes. Stage runs them for requests, by a bounded number of workers.
// What comes out is Pillow's result in floating point: the same weights, without rounding between the two passes.
package image

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	stdimage "image"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"

	"golang.org/x/image/bmp"
	"golang.org/x/image/webp"

	"sluicegate/go_infer/internal/status"
)

// Formats names what Decode reads, for messages.
const Formats = "JPEG, PNG, GIF, BMP or WebP"

// maxScans bounds the passes over all pixels that a progressive JPEG may ask for: encoders write about 10, and each costs time for a few
// bytes. libjpeg-turbo's -maxscans exists for the same reason.
const maxScans = 64

// format is one file format. smallest is the least number of bytes a file of these pixels can have; a shorter one lies about its size and
// is refused before memory is taken for it.
type format struct {
	name     string
	is       func(content []byte) bool
	config   func(io.Reader) (stdimage.Config, error)
	decode   func(io.Reader) (stdimage.Image, error)
	smallest func(content []byte, pixels int) int
	exif     func(content []byte) []byte // the TIFF structure inside, if there is one
}

func begins(magic string) func([]byte) bool {
	return func(content []byte) bool { return bytes.HasPrefix(content, []byte(magic)) }
}

var formats = []format{
	{"JPEG", begins("\xff\xd8\xff"), jpeg.DecodeConfig, jpeg.Decode, smallestJPEG, exifOfJPEG},
	{"PNG", begins("\x89PNG\r\n\x1a\n"), png.DecodeConfig, png.Decode, smallestPNG, exifOfPNG},
	{"GIF", begins("GIF8"), gif.DecodeConfig, gif.Decode, nil, nil},
	{"BMP", begins("BM"), bmp.DecodeConfig, bmp.Decode, smallestBMP, nil},
	{"WebP", isWebP, webp.DecodeConfig, webp.Decode, nil, exifOfWebP},
}

func isWebP(content []byte) bool {
	return len(content) >= 12 && string(content[:4]) == "RIFF" && string(content[8:12]) == "WEBP"
}

// smallestJPEG: a block of 64 pixels takes at least one bit, that of its DC coefficient.
func smallestJPEG(_ []byte, pixels int) int { return pixels / 512 }

// smallestPNG: DEFLATE shrinks at most 1032:1 (zlib, "Technical Details"); bits per pixel are in IHDR (PNG specification, 11.2.2).
func smallestPNG(content []byte, pixels int) int {
	samples := map[byte]int{0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[content[25]]
	return pixels * samples * int(content[24]) / 8 / 1032
}

// smallestBMP: the rows are there as they are (BITMAPINFOHEADER.biBitCount); only the last may be cut, as decoders allow.
func smallestBMP(content []byte, pixels int) int {
	return pixels * int(binary.LittleEndian.Uint16(content[28:])) / 8
}

// Picture is a decoded picture, as its file stores it.
type Picture struct {
	Width, Height int // of the canvas, as it is stored
	stored        stdimage.Image
	left, top     int  // of what is stored in the canvas: a GIF's first frame can be smaller
	orientation   int  // EXIF's, 1..8
	video         bool // its YCbCr samples are in video range
}

// Decode reads a picture of at most maxPixels. Its header is checked before its pixels get memory: about 4 bytes each, 8 if they have 16
// bits a channel, 16 while a progressive JPEG is read. It gives up when ctx ends.
func Decode(ctx context.Context, content []byte, maxPixels int) (*Picture, error) {
	if len(content) == 0 {
		return nil, status.Errorf(status.InvalidArgument, "the image is empty; send a %s", Formats)
	}
	for i := range formats {
		if formats[i].is(content) {
			return formats[i].read(ctx, content, maxPixels)
		}
	}
	shown := content[:min(len(content), 8)]
	return nil, &status.Error{Code: status.InvalidArgument, HTTP: 415,
		Message: status.Errorf(0, "the image is no %s; it begins with %q", Formats, shown).Message}
}

func (f *format) read(ctx context.Context, content []byte, maxPixels int) (*Picture, error) {
	config, err := f.config(bytes.NewReader(content))
	if err != nil {
		return nil, f.broken(err)
	}
	w, h := config.Width, config.Height
	if w < 1 || h < 1 {
		return nil, status.Errorf(status.InvalidArgument, "the image is a %s of %dx%d pixels: there is nothing to see", f.name, w, h)
	}
	if w > maxPixels/h {
		return nil, status.Errorf(status.InvalidArgument, "the image is %dx%d; at most %d pixels are accepted", w, h, maxPixels)
	}
	if f.smallest != nil {
		if least := f.smallest(content, w*h); len(content) < least {
			return nil, status.Errorf(status.InvalidArgument, "the image claims to be a %s of %dx%d pixels, but has only %d bytes: at least %d would be needed",
				f.name, w, h, len(content), least)
		}
	}
	if f.name == "JPEG" {
		if scans := bytes.Count(content, []byte{0xff, 0xda}); scans > maxScans {
			return nil, status.Errorf(status.InvalidArgument, "the image is a JPEG of %d scans; at most %d are accepted", scans, maxScans)
		}
	}
	stored, err := f.decode(&cancellable{ctx, bytes.NewReader(content)})
	if ctx.Err() != nil {
		return nil, abandoned(ctx)
	}
	if err != nil {
		return nil, f.broken(err)
	}
	p := &Picture{Width: w, Height: h, stored: stored, orientation: 1, video: f.name == "WebP"}
	bounds := stored.Bounds()
	if f.name == "GIF" {
		p.left, p.top = bounds.Min.X, bounds.Min.Y
	} else if bounds.Dx() != w || bounds.Dy() != h {
		return nil, status.Errorf(status.InvalidArgument, "the image's header says %dx%d, its content %dx%d", w, h, bounds.Dx(), bounds.Dy())
	}
	if f.exif != nil {
		p.orientation = orientation(f.exif(content))
	}
	return p, nil
}

// cancellable is a reader that fails once ctx has ended, so that nobody's picture is not decoded to its end.
type cancellable struct {
	ctx context.Context
	*bytes.Reader
}

func (r *cancellable) Read(into []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(into[:min(len(into), 4096)])
}

func (f *format) broken(err error) error {
	var ofPNG png.UnsupportedError
	var ofJPEG jpeg.UnsupportedError
	if errors.As(err, &ofPNG) || errors.As(err, &ofJPEG) || errors.Is(err, bmp.ErrUnsupported) {
		return status.Errorf(status.InvalidArgument, "the image is a %s of a kind that is not supported: %v", f.name, err)
	}
	return status.Errorf(status.InvalidArgument, "the image begins as a %s but cannot be decoded: %v", f.name, err)
}

// abandoned words the end of a request's context.
func abandoned(ctx context.Context) error {
	if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return status.Errorf(status.DeadlineExceeded, "the request's deadline passed before its picture was decoded")
	}
	return status.Errorf(status.Cancelled, "the client went away")
}
