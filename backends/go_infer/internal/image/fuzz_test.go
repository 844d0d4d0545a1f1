package image

import (
	"bytes"
	"context"
	"encoding/base64"
	stdimage "image"
	"image/gif"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/image/bmp"
)

// A lossless and a lossy WebP of 3x2 pixels: Go has no encoder.
var webps = []string{
	"UklGRiIAAABXRUJQVlA4TBUAAAAvAkAAAA/whf9BHo/5jzS84CCi/xEA",
	"UklGRkgAAABXRUJQVlA4IDwAAACwAQCdASoDAAIAAsBMJagCdAD0bDXAAP7b0RF1jXsquRJanIvr1S25Mn/5y9GPbv/8TZ/9NdvuL5WAAAA=",
}

func seeds(f *testing.F) {
	for _, picture := range []stdimage.Image{
		stroke(8, 8, 0, 255),
		stdimage.NewNRGBA(stdimage.Rect(0, 0, 5, 3)),
		stdimage.NewRGBA64(stdimage.Rect(0, 0, 5, 3)),
	} {
		for _, encode := range []func(*bytes.Buffer) error{
			func(b *bytes.Buffer) error { return png.Encode(b, picture) },
			func(b *bytes.Buffer) error { return jpeg.Encode(b, picture, nil) },
			func(b *bytes.Buffer) error { return gif.Encode(b, picture, nil) },
			func(b *bytes.Buffer) error { return bmp.Encode(b, picture) },
		} {
			var buffer bytes.Buffer
			if err := encode(&buffer); err != nil {
				f.Fatal(err)
			}
			f.Add(buffer.Bytes())
		}
	}
	for _, text := range webps {
		content, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content)
	}
	for _, value := range "\x01\x06\x09" { // EXIF orientations
		f.Add(append([]byte("\xff\xd8\xff\xe1\x00\x22Exif\x00\x00II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00"),
			byte(value), 0, 0, 0, 0, 0, 0, 0))
	}
	more, _ := filepath.Glob(os.Getenv("SLUICEGATE_PICTURES")) // what the reference script writes, if wanted
	for _, name := range more {
		if content, err := os.ReadFile(name); err == nil {
			f.Add(content)
		}
	}
}

var fuzzed = []Preprocess{
	digit,
	declared(`{"width": 5, "height": 7, "color": "bgr", "range": [0, 1], "resize": "bicubic", "fit": "letterbox", "layout": "NCHW"}`),
	declared(`{"width": 9, "height": 2, "color": "rgb", "dtype": "uint8", "resize": "area", "fit": "crop"}`),
	declared(`{"width": 3, "height": 3, "color": "rgb", "dtype": "float16", "range": [0, 1], "antialias": true}`),
}

// FuzzDecode: no bytes make it panic, or take more memory than its pixels and its bytes allow.
func FuzzDecode(f *testing.F) {
	seeds(f)
	const pixels = 1 << 12
	f.Fuzz(func(t *testing.T, content []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		picture, err := Decode(context.Background(), content, pixels)
		runtime.ReadMemStats(&after)
		// 16 bytes a pixel, what decoders always take (tables, zlib's window, WebP's trees), and what a file's own bytes may ask for.
		if took := after.TotalAlloc - before.TotalAlloc; took > 16*pixels+4<<20+4096*uint64(len(content)) {
			t.Errorf("%d bytes took %d bytes of memory", len(content), took)
		}
		if err != nil {
			return
		}
		if picture.Width*picture.Height > pixels {
			t.Errorf("%dx%d pixels were decoded", picture.Width, picture.Height)
		}
		for i := range fuzzed {
			picture.Write(&fuzzed[i], make([]byte, fuzzed[i].Size()))
		}
	})
}

// FuzzOrientation: no bytes make the EXIF readers panic.
func FuzzOrientation(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, content []byte) {
		for i := range formats {
			if format := &formats[i]; format.exif != nil && format.is(content) {
				if value := orientation(format.exif(content)); value < 1 || value > 8 {
					t.Errorf("orientation %d", value)
				}
			}
		}
		orientation(content)
	})
}

// FuzzPreprocess: no declaration that is accepted makes a conversion panic.
func FuzzPreprocess(f *testing.F) {
	f.Add([]byte(`{"width": 5, "height": 7, "color": "bgr", "range": [0, 1], "resize": "bicubic", "fit": "letterbox", "layout": "NCHW"}`))
	f.Add([]byte(`{"width": 1, "height": 64, "color": "grayscale", "fit": "crop", "crop_fraction": 1e-9, "mean": 1, "antialias": true}`))
	f.Add([]byte(`{"width": 8, "height": 8, "color": "grayscale", "range": [0, 16], "resize": "area", "fit": "pad", "ink": "dark"}`))
	picture := &Picture{Width: 7, Height: 3, stored: stroke(7, 3, 0, 255), orientation: 6}
	f.Fuzz(func(t *testing.T, text []byte) {
		how := &Preprocess{}
		if how.UnmarshalJSON(text) != nil || how.Width*how.Height > 1<<14 {
			return
		}
		picture.Write(how, make([]byte, how.Size()))
	})
}
