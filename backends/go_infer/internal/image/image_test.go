package image

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
	stdimage "image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"sluicegate/go_infer/internal/panics"
	"sluicegate/go_infer/internal/status"
)

func declared(text string) Preprocess {
	p := Preprocess{}
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		panic(err)
	}
	return p
}

var digit = declared(`{"width": 8, "height": 8, "color": "grayscale", "range": [0, 16], "resize": "area", "fit": "pad",
	"ink": "bright", "invert": "auto"}`)

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

func row(t *testing.T, content []byte, how Preprocess) []float32 {
	t.Helper()
	picture, err := Decode(context.Background(), content, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	row := make([]byte, how.Size())
	picture.Write(&how, row)
	values := make([]float32, len(row)/4)
	for i := range values {
		values[i] = math.Float32frombits(binary.LittleEndian.Uint32(row[4*i:]))
	}
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

func TestWhatIsNoPictureIsRefusedBeforeItCostsAnything(t *testing.T) {
	good := encode(t, stroke(64, 64, 0, 255), "png")
	claims := func(width, height uint32) []byte { // the header of a PNG, with its checksum
		lie := bytes.Clone(good)
		binary.BigEndian.PutUint32(lie[16:], width)
		binary.BigEndian.PutUint32(lie[20:], height)
		binary.BigEndian.PutUint32(lie[29:], crc32.ChecksumIEEE(lie[12:29]))
		return lie
	}
	photo := encode(t, stroke(64, 64, 0, 255), "jpeg")
	wide := bytes.Clone(photo)
	frame := bytes.Index(wide, []byte{0xff, 0xc0})
	copy(wide[frame+5:], []byte{0x04, 0x00, 0x04, 0x00}) // 1024 x 1024
	scans := append(bytes.Clone(photo), bytes.Repeat([]byte{0xff, 0xda}, 64)...)
	bitmap := []byte("BM" + strings.Repeat("\x00", 52))
	copy(bitmap[10:], "\x36\x00\x00\x00\x28\x00\x00\x00\x00\x04\x00\x00\x00\x04\x00\x00\x01\x00\x18")
	for _, c := range []struct {
		name    string
		content []byte
		says    string
	}{
		{"nothing", nil, "the image is empty; send a JPEG, PNG, GIF, BMP or WebP"},
		{"text", []byte("hello"), `no JPEG, PNG, GIF, BMP or WebP; it begins with "hello"`},
		{"half a PNG", good[:len(good)/2], "begins as a PNG but cannot be decoded"},
		{"half a JPEG", photo[:200], "begins as a JPEG but cannot be decoded"},
		{"a GIF's header", []byte("GIF89a\x02\x00\x02\x00\x00\x00\x00"), "begins as a GIF but cannot be decoded"},
		{"a WebP's header", []byte("RIFF\x04\x00\x00\x00WEBP"), "begins as a WebP but cannot be decoded"},
		{"an old BMP", []byte("BM" + strings.Repeat("\x00", 60)), "a BMP of a kind that is not supported"},
		{"a GIF of nothing", []byte("GIF89a\x00\x00\x02\x00\x00\x00\x00;"), "a GIF of 0x2 pixels: there is nothing to see"},
		{"too many pixels", claims(2000, 2000), "the image is 2000x2000; at most 1048576 pixels are accepted"},
		{"more than an int of pixels", claims(1<<31-1, 1<<31-1), "PNG"},
		{"a PNG too short for its size", claims(1024, 1024), "claims to be a PNG of 1024x1024 pixels, but has only"},
		{"a JPEG too short for its size", wide, "claims to be a JPEG of 1024x1024 pixels, but has only"},
		{"a BMP too short for its size", bitmap, "claims to be a BMP of 1024x1024 pixels, but has only 54 bytes: at least 3145728"},
		{"a JPEG of many scans", scans, "a JPEG of 65 scans; at most 64 are accepted"},
		{"a wrong checksum", append(bytes.Clone(good[:30]), good[31:]...), "begins as a PNG but cannot be decoded"},
	} {
		_, err := Decode(context.Background(), c.content, 1<<20)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want %s", c.name, err, c.says)
		}
	}
}

func TestNobodysPictureIsNotDecoded(t *testing.T) {
	content := encode(t, stroke(900, 900, 0, 255), "jpeg")
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	late, stop := context.WithDeadline(context.Background(), time.Now().Add(-time.Second))
	defer stop()
	for ctx, code := range map[context.Context]status.Code{gone: status.Cancelled, late: status.DeadlineExceeded} {
		if _, err := Decode(ctx, content, 1<<20); status.From(err).Code != code {
			t.Errorf("got %v, want %v", err, code)
		}
	}
}

func TestHalvesAreRoundedToEven(t *testing.T) {
	for _, c := range []struct {
		value float64
		bits  uint16
	}{
		{0, 0}, {math.Copysign(0, -1), 0x8000}, {1, 0x3c00}, {-2, 0xc000}, {65504, 0x7bff}, {65519, 0x7bff}, {65520, 0x7c00}, {1e9, 0x7c00},
		{math.Inf(-1), 0xfc00}, {1 + 1./2048, 0x3c00}, {1 + 3./2048, 0x3c02}, {1 + 1./2048 + 1e-6, 0x3c01}, {0x1p-24, 1}, {0x1p-25, 0},
		{0x1.8p-24, 2}, {0x1p-14, 0x400}, {0x1.ff8p-15, 0x3ff}, {0x1.ffcp-15, 0x400}, {math.NaN(), 0x7e00},
	} {
		if got := toHalf(float32(c.value)); got != c.bits {
			t.Errorf("%v is %#x, want %#x", c.value, got, c.bits)
		}
	}
	for bits := range uint16(0x7c00) { // every finite half is itself
		if got := toHalf(float32(fromHalf(bits))); got != bits {
			t.Fatalf("%#x became %#x", bits, got)
		}
	}
}

func TestAWrongDeclarationSaysWhereAndWhatIsAllowed(t *testing.T) {
	for _, c := range []struct{ change, says string }{
		{`"width": 0`, "preprocess.width is 0; it must be 1..4096"},
		{`"width": 4097`, "preprocess.width is 4097; it must be 1..4096"},
		{`"width": 1.5`, "preprocess.width is 1.5; it must be a whole number"},
		{`"height": "8"`, `preprocess.height is "8"; it must be a whole number`},
		{`"heigth": 8`, "preprocess.heigth is not known; there are antialias, background, color,"},
		{`"color": "RGB"`, `preprocess.color is "RGB"; it must be one of ["grayscale" "rgb" "bgr"]`},
		{`"resize": "lanczos"`, `preprocess.resize is "lanczos"; it must be one of`},
		{`"resize": "area", "antialias": true`, `preprocess.antialias has no meaning with "resize": "area"`},
		{`"antialias": 1`, "preprocess.antialias is 1; it must be true or false"},
		{`"fit": "fill"`, `preprocess.fit is "fill"`},
		{`"crop_fraction": 0.5`, `preprocess.crop_fraction has no meaning with "fit": "stretch"`},
		{`"fit": "crop", "crop_fraction": 1.5`, "preprocess.crop_fraction is 1.5; it must be above 0 and at most 1"},
		{`"pad": 3`, "preprocess.pad has no meaning"},
		{`"fit": "letterbox", "pad": [0, 256, 0]`, "preprocess.pad[1] is 256; colours are 0..255"},
		{`"fit": "letterbox", "pad": [0, 1]`, "preprocess.pad has 2 numbers; rgb has 3 channels"},
		{`"mean": [0, "1", 2]`, `preprocess.mean is [0, "1", 2]; it must be a number, or a list of one for each channel`},
		{`"mean": null`, "preprocess.mean is null"},
		{`"scale": [1, 2, 1e39]`, "preprocess.scale[2] is 1e+39; it must fit a float32"},
		{`"range": [0]`, "preprocess.range is [0]; it must be a list of two numbers"},
		{`"range": [0, 1e300]`, "preprocess.range[1] is 1e+300; it must fit a float32"},
		{`"ink": "bright"`, "preprocess.ink is for grayscale only"},
		{`"invert": "auto"`, "preprocess.invert has no meaning without ink"},
		{`"layout": "CHW"`, `preprocess.layout is "CHW"; it must be one of ["NHWC" "NCHW"]`},
		{`"dtype": "bfloat16"`, `preprocess.dtype is "bfloat16"`},
	} {
		text := `{"width": 8, "height": 8, "color": "rgb", "range": [0, 1], ` + c.change + `}`
		err := json.Unmarshal([]byte(text), &Preprocess{})
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want %s", c.change, err, c.says)
		}
	}
	for text, says := range map[string]string{
		`{"height": 8, "color": "rgb"}`:             "preprocess.width is missing",
		`{"width": 8, "height": 8, "color": "rgb"}`: "preprocess.range is missing",
		`[]`: "preprocess is no JSON object",
		`{"width": 8, "height": 8, "range": [0, 1]}`: "preprocess.color is missing",
	} {
		if err := json.Unmarshal([]byte(text), &Preprocess{}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v, want %s", text, err, says)
		}
	}
}

func TestAQueryDeclaresTheSameAsJSON(t *testing.T) {
	query, _ := url.ParseQuery("top=3&width=8&height=9&color=bgr&range=0,1&mean=0.5&scale=1,2,3&fit=letterbox&pad=7&antialias=true&dtype=float16")
	got, err := FromQuery(query, "top")
	want := declared(`{"width":8,"height":9,"color":"bgr","range":[0,1],"mean":0.5,"scale":[1,2,3],"fit":"letterbox","pad":7,"antialias":true,"dtype":"float16"}`)
	if err != nil || !reflect.DeepEqual(*got, want) {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	if none, err := FromQuery(url.Values{"top": {"3"}}, "top"); none != nil || err != nil {
		t.Errorf("a query that declares nothing: %v, %v", none, err)
	}
	for text, says := range map[string]string{"widht=3": "preprocess.widht is no parameter", "width=3}": "preprocess.width is 3}; it must be a whole number"} {
		query, _ := url.ParseQuery(text)
		if _, err := FromQuery(query); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v, want %s", text, err, says)
		}
	}
}

func TestAPanicOnOnePictureFailsItsRequest(t *testing.T) {
	stage := NewStage(Limits{Workers: 2, Waiting: 4, Pixels: 1 << 20, Pictures: 4, Tensor: 1 << 20})
	picture, before := encode(t, stroke(20, 20, 255, 0), "png"), panics.Count()
	err := stage.Fill(context.Background(), [][]byte{picture, picture}, &digit, make([]byte, digit.Size())) // one row short
	if status.From(err).Code != status.Internal || panics.Count() == before {
		t.Errorf("%v; %d panics are counted", err, panics.Count()-before)
	}
	if stage.Working() != 0 {
		t.Error("a worker is still taken")
	}
}
