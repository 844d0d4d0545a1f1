package api

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
)

const bodyLimit = 100_000

// packers are the encodings, as clients write them.
var packers = map[string]func(io.Writer) io.WriteCloser{
	"gzip":   func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
	"x-gzip": func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
	"GZIP":   func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
	"deflate": func(w io.Writer) io.WriteCloser {
		return zlib.NewWriter(w)
	},
	"deflate ": func(w io.Writer) io.WriteCloser { // bare, without zlib's header; the space tells it apart here
		writer, _ := flate.NewWriter(w, flate.DefaultCompression)
		return writer
	},
}

func pack(t testing.TB, encoding string, content []byte) []byte {
	t.Helper()
	var packed bytes.Buffer
	writer := packers[encoding](&packed)
	if _, err := writer.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return packed.Bytes()
}

// send posts a body; the operation answers with the body it got.
func send(t testing.TB, body io.Reader, gzipFrom int, headers ...string) *http.Response {
	t.Helper()
	request := httptest.NewRequest(http.MethodPost, "/", body)
	for i := 0; i < len(headers); i += 2 {
		request.Header.Add(headers[i], headers[i+1])
	}
	recorder := httptest.NewRecorder()
	Serve(recorder, request, Limits{MaxBody: bodyLimit, GzipFrom: gzipFrom}, nil, func(x *Exchange) error {
		x.Answer = append(x.Answer, x.Body...)
		return nil
	})
	return recorder.Result()
}

func text(t testing.TB, response *http.Response) string {
	t.Helper()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestCompressedBodiesAreReadWithBothSizesBounded(t *testing.T) {
	for encoding := range packers {
		for _, c := range []struct {
			name    string
			content []byte
			code    int
		}{
			{"small", []byte(`{"instances":[1]}`), 200},
			{"empty", nil, 200},
			{"as large as allowed", bytes.Repeat([]byte("a"), bodyLimit), 200},
			{"one byte more", bytes.Repeat([]byte("a"), bodyLimit+1), 413},
			{"a bomb", make([]byte, 50<<20), 413},
		} {
			packed := pack(t, encoding, c.content)
			response := send(t, bytes.NewReader(packed), 0, "Content-Encoding", encoding)
			said := text(t, response)
			if response.StatusCode != c.code || c.code == 200 && said != string(c.content) {
				t.Errorf("%s, %s: %d %.80s", encoding, c.name, response.StatusCode, said)
			}
			if c.code == 413 && (!strings.Contains(said, "larger than the 100000 bytes that --max_body allows") || response.Header.Get("Connection") != "close") {
				t.Errorf("%s, %s: %s", encoding, c.name, said)
			}
		}
	}
}

func TestBrokenCompressedBodiesAreRefused(t *testing.T) {
	whole := pack(t, "gzip", bytes.Repeat([]byte("some text "), 1000))
	damaged := bytes.Clone(whole)
	damaged[len(damaged)-6] ^= 1 // in the checksum
	for _, c := range []struct {
		name, encoding string
		body           []byte
		code           int
		says           string
	}{
		{"cut short", "gzip", whole[:len(whole)/2], 400, "the gzip body is cut short"},
		{"no header", "gzip", []byte("x"), 400, "the gzip body is cut short"},
		{"nothing", "gzip", nil, 400, "the gzip body is cut short"},
		{"nothing", "deflate", nil, 400, "the deflate body is cut short"},
		{"wrong checksum", "gzip", damaged, 400, "the body is not gzip, which its Content-Encoding says: gzip: invalid checksum"},
		{"not gzip at all", "gzip", []byte(`{"instances":[[1,2,3]]}`), 400, "the body is not gzip, which its Content-Encoding says: gzip: invalid header"},
		{"not deflate at all", "deflate", []byte(`{"instances":[[1,2,3]]}`), 400, "the body is not deflate"},
		{"another encoding", "br", []byte("x"), 415, `Content-Encoding \"br\" is not supported; send gzip, deflate or the body as it is`},
		{"two encodings", "gzip, gzip", whole, 415, `Content-Encoding \"gzip, gzip\" is not supported`},
	} {
		response := send(t, bytes.NewReader(c.body), 0, "Content-Encoding", c.encoding)
		if said := text(t, response); response.StatusCode != c.code || !strings.Contains(said, c.says) {
			t.Errorf("%s: %d %s, want %d %s", c.name, response.StatusCode, said, c.code, c.says)
		}
		if c.code == 415 && response.Header.Get("Accept-Encoding") != "gzip, deflate" {
			t.Errorf("%s: it is not said what is supported", c.name)
		}
	}
}

// endless is a deflate stream of empty stored blocks: it becomes nothing, for ever.
type endless struct{ given int }

func (e *endless) Read(to []byte) (int, error) {
	block := []byte{0, 0, 0, 0xff, 0xff}
	for i := range to {
		to[i] = block[(e.given+i)%len(block)]
	}
	e.given += len(to)
	return len(to), nil
}

func TestAnEndlessStreamOfNothingEnds(t *testing.T) {
	stream := &endless{}
	response := send(t, stream, 0, "Content-Encoding", "deflate")
	if response.StatusCode != 413 || stream.given > bodyLimit+8192 {
		t.Errorf("%d after %d bytes", response.StatusCode, stream.given)
	}
}

func TestAnswersAreCompressedOnlyIfAskedForAndLarge(t *testing.T) {
	large, small := strings.Repeat("0.5,", 5000), strings.Repeat("0.5,", 100)
	for _, c := range []struct {
		name, body, accept string
		from               int
		packed             bool
	}{
		{"asked for", large, "gzip", 1000, true},
		{"among others", large, "br, gzip;q=0.5, *", 1000, true},
		{"by its old name", large, "x-gzip", 1000, true},
		{"not asked for", large, "", 1000, false},
		{"another", large, "br", 1000, false},
		{"refused", large, "gzip;q=0", 1000, false},
		{"anything", large, "*", 1000, false},
		{"small", small, "gzip", 1000, false},
		{"just too small", large, "gzip", len(large) + 1, false},
		{"just large enough", large, "gzip", len(large), true},
		{"switched off", large, "gzip", 0, false},
	} {
		var headers []string
		if c.accept != "" {
			headers = []string{"Accept-Encoding", c.accept}
		}
		response := send(t, strings.NewReader(c.body), c.from, headers...)
		packed := response.Header.Get("Content-Encoding") == "gzip"
		varies := response.Header.Get("Vary") == "Accept-Encoding"
		if packed != c.packed || varies != (c.from > 0 && len(c.body) >= c.from) {
			t.Errorf("%s: compressed: %v, Vary: %v", c.name, packed, varies)
		}
		if packed {
			reader, err := gzip.NewReader(response.Body)
			if err != nil {
				t.Fatal(err)
			}
			response.Body = io.NopCloser(reader)
		}
		if text(t, response) != c.body {
			t.Errorf("%s: another answer came back", c.name)
		}
	}
}

// FuzzDecompress: whatever the bytes, no panic, and never more than is allowed.
func FuzzDecompress(f *testing.F) {
	for encoding := range packers {
		f.Add(strings.TrimSpace(encoding), pack(f, encoding, []byte("some text some text")))
	}
	f.Add("gzip", []byte{0x1f, 0x8b})
	f.Fuzz(func(t *testing.T, encoding string, body []byte) {
		x := &Exchange{Request: httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body)), Header: http.Header{}}
		if x.decompress(encoding, 1000) == nil && len(x.Body) > 1000 {
			t.Fatalf("%d bytes", len(x.Body))
		}
	})
}

// numbers is an answer of at least so many bytes.
func numbers(size int) (text []byte) {
	random := rand.New(rand.NewPCG(1, 1))
	for len(text) < size {
		text = append(strconv.AppendFloat(text, float64(random.Float32()), 'g', -1, 32), ',')
	}
	return text
}

func BenchmarkCompressedAnswer(b *testing.B) {
	x := &Exchange{Request: httptest.NewRequest(http.MethodPost, "/", nil), Answer: numbers(100_000)}
	x.Request.Header.Set("Accept-Encoding", "gzip")
	b.SetBytes(int64(len(x.Answer)))
	b.ReportAllocs()
	for b.Loop() {
		x.Header = http.Header{}
		x.compress(1)
	}
}
