package image

import (
	"bytes"
	stdimage "image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math"
	"strings"
	"testing"

	"sluicegate/go_infer/internal/model"
)

var digit = model.Preprocess{
	Width: 8, Height: 8, Color: "grayscale", Range: [2]float64{0, 16}, Resize: "area", Fit: "pad", Ink: "bright", Invert: "auto",
}

// stroke is a picture of a vertical bar of ink, w x h, on a ground.
func stroke(w, h int, ground, ink uint8) *stdimage.Gray {
	picture := stdimage.NewGray(stdimage.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			value := ground
			if x >= 3*w/8 && x < 5*w/8 {
				value = ink
			}
			picture.SetGray(x, y, color.Gray{Y: value})
		}
	}
	return picture
}

func encode(t *testing.T, picture stdimage.Image, format string) []byte {
	t.Helper()
	var buffer bytes.Buffer
	var err error
	if format == "png" {
		err = png.Encode(&buffer, picture)
	} else {
		err = jpeg.Encode(&buffer, picture, &jpeg.Options{Quality: 95})
	}
	if err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

func row(t *testing.T, content []byte, how model.Preprocess) []float32 {
	t.Helper()
	plane, err := Decode(content, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	values := make([]float32, how.Width*how.Height)
	Write(plane, &how, values)
	return values
}

func near(a, b, by float32) bool { return math.Abs(float64(a-b)) <= float64(by) }

func TestInkIsBrightWhateverTheSizeFormatAndPaper(t *testing.T) {
	for _, format := range []string{"png", "jpeg"} {
		for _, size := range []int{8, 16, 64, 100, 333} {
			for _, paper := range []struct{ ground, ink uint8 }{{0, 255}, {255, 0}} {
				values := row(t, encode(t, stroke(size, size, paper.ground, paper.ink), format), digit)
				for y := range 8 {
					for x := range 8 {
						want := float32(0)
						if x == 3 || x == 4 {
							want = 16
						}
						// 100 and 333 do not divide by 8, so the bar's edge falls inside a cell.
						edge := (x == 2 || x == 3 || x == 4 || x == 5) && size%8 != 0
						if got := values[y*8+x]; !near(got, want, .4) && !(edge && got >= 0 && got <= 16) {
							t.Fatalf("%s %dx%d on %d: cell (%d,%d) is %.2f, want %.0f", format, size, size, paper.ground, x, y, got, want)
						}
					}
				}
			}
		}
	}
}

func TestAWidePictureKeepsItsShape(t *testing.T) {
	picture := stdimage.NewGray(stdimage.Rect(0, 0, 64, 32)) // black, with a white row of pixels at the top half
	for y := range 16 {
		for x := 16; x < 48; x++ {
			picture.SetGray(x, y, color.Gray{Y: 255})
		}
	}
	values := row(t, encode(t, picture, "png"), digit)
	for y := range 8 {
		want := float32(0)
		if y == 2 || y == 3 {
			want = 16
		}
		if got := values[y*8+4]; !near(got, want, .01) {
			t.Errorf("row %d is %.2f, want %.0f", y, got, want)
		}
	}
}

func TestAveragingKeepsTheMean(t *testing.T) {
	picture := stdimage.NewGray(stdimage.Rect(0, 0, 37, 37))
	sum := 0.0
	for i := range picture.Pix {
		picture.Pix[i] = uint8(i * 7 % 120)
		sum += float64(picture.Pix[i])
	}
	how := digit
	how.Invert, how.Range = "never", [2]float64{0, 255}
	got := 0.0
	for _, value := range row(t, encode(t, picture, "png"), how) {
		got += float64(value)
	}
	if mean, want := got/64, sum/37/37; math.Abs(mean-want) > .01 {
		t.Errorf("mean %.4f, want %.4f", mean, want)
	}
}

func TestColourAndTransparencyBecomeBrightness(t *testing.T) {
	picture := stdimage.NewNRGBA(stdimage.Rect(0, 0, 2, 2))
	picture.Set(0, 0, color.NRGBA{255, 0, 0, 255})
	picture.Set(1, 0, color.NRGBA{0, 255, 0, 255})
	picture.Set(0, 1, color.NRGBA{0, 0, 0, 0}) // transparent: paper
	picture.Set(1, 1, color.NRGBA{0, 0, 0, 255})
	plane, err := Decode(encode(t, picture, "png"), 100)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []uint8{76, 150, 255, 0} {
		if got := plane.Pixels[i]; max(got, want)-min(got, want) > 1 {
			t.Errorf("pixel %d is %d, want about %d", i, got, want)
		}
	}
}

func TestWhatIsNoPictureIsRefused(t *testing.T) {
	good := encode(t, stroke(64, 64, 0, 255), "png")
	huge := bytes.Clone(good)
	copy(huge[16:], []byte{0, 1, 0, 0, 0, 1, 0, 0}) // the header claims 65536 x 65536
	for _, c := range []struct {
		name    string
		content []byte
		says    string
	}{
		{"nothing", nil, "the image is empty"},
		{"text", []byte("hello"), `neither a PNG nor a JPEG; it begins with "hello"`},
		{"half a PNG", good[:len(good)/2], "begins as a PNG but cannot be decoded"},
		{"half a JPEG", encode(t, stroke(64, 64, 0, 255), "jpeg")[:200], "begins as a JPEG but cannot be decoded"},
		{"too many pixels", encode(t, stroke(2000, 2000, 0, 255), "png"), "the image is 2000x2000; at most 1048576 pixels are accepted"},
		{"a bomb", huge, "cannot be decoded"},
	} {
		_, err := Decode(c.content, 1<<20)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want %s", c.name, err, c.says)
		}
	}
}

// FuzzDecode: no bytes make it panic or allocate beyond the limit.
func FuzzDecode(f *testing.F) {
	var buffer bytes.Buffer
	_ = png.Encode(&buffer, stroke(8, 8, 0, 255))
	f.Add(buffer.Bytes())
	buffer.Reset()
	_ = jpeg.Encode(&buffer, stroke(8, 8, 0, 255), nil)
	f.Add(buffer.Bytes())
	f.Fuzz(func(t *testing.T, content []byte) {
		plane, err := Decode(content, 1<<12)
		if err == nil {
			Write(plane, &digit, make([]float32, 64))
		}
	})
}
