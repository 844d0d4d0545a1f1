package image

import (
	"bytes"
	"context"
	stdimage "image"
	"image/color"
	"image/jpeg"
	"image/png"
	"testing"
)

// photo is a picture with slopes and noise, as a camera makes them.
func photo(width, height int) *stdimage.RGBA {
	picture := stdimage.NewRGBA(stdimage.Rect(0, 0, width, height))
	noise := uint32(1)
	for y := range height {
		for x := range width {
			noise = noise*1664525 + 1013904223
			n := uint8(noise >> 28)
			picture.SetRGBA(x, y, color.RGBA{uint8(x*200/width) + n, uint8(y*200/height) + n, uint8((x+y)*100/(width+height)) + n, 255})
		}
	}
	return picture
}

func benchmark(b *testing.B, content []byte, how Preprocess) {
	row := make([]byte, how.Size())
	b.SetBytes(int64(len(content)))
	b.ReportAllocs()
	for b.Loop() {
		picture, err := Decode(context.Background(), content, 16<<20)
		if err != nil {
			b.Fatal(err)
		}
		picture.Write(&how, row)
	}
}

func BenchmarkDigitPNG(b *testing.B) {
	var file bytes.Buffer
	_ = png.Encode(&file, stroke(192, 192, 0, 255))
	benchmark(b, file.Bytes(), digit)
}

func BenchmarkPhotoJPEG(b *testing.B) {
	var file bytes.Buffer
	_ = jpeg.Encode(&file, photo(1920, 1080), &jpeg.Options{Quality: 90})
	for _, resize := range []string{`"area"`, `"bilinear"`, `"bilinear", "antialias": true`, `"nearest"`} {
		b.Run(resize, func(b *testing.B) {
			benchmark(b, file.Bytes(), declared(`{"width": 224, "height": 224, "color": "rgb", "range": [0, 1], "fit": "crop", "resize": `+resize+`}`))
		})
	}
}

// BenchmarkResample is the same without decoding.
func BenchmarkResample(b *testing.B) {
	picture := &Picture{Width: 1920, Height: 1080, stored: photo(1920, 1080), orientation: 1}
	for _, resize := range []string{`"area"`, `"bilinear"`, `"bilinear", "antialias": true`} {
		b.Run(resize, func(b *testing.B) {
			how := declared(`{"width": 224, "height": 224, "color": "rgb", "range": [0, 1], "resize": ` + resize + `}`)
			row := make([]byte, how.Size())
			b.ReportAllocs()
			for b.Loop() {
				picture.Write(&how, row)
			}
		})
	}
}
