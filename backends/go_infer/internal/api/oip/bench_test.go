package oip_test

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"

	"sluicegate/go_infer/internal/testmodels"
)

// sink is a ResponseWriter that costs nothing.
type sink struct {
	header http.Header
	code   int
}

func (s *sink) Header() http.Header              { return s.header }
func (s *sink) WriteHeader(code int)             { s.code = code }
func (s *sink) Write(answer []byte) (int, error) { return len(answer), nil }

// repeated is a request that can be made again and again.
type repeated struct {
	request *http.Request
	body    bytes.Reader
	bytes   []byte
}

func newRepeated(b *testing.B, body []byte, head int) *repeated {
	b.Helper()
	request, err := http.NewRequest("POST", "/v2/models/digits/infer", nil)
	if err != nil {
		b.Fatal(err)
	}
	r := &repeated{request: request, bytes: body}
	request.Header.Set("Inference-Header-Content-Length", strconv.Itoa(head))
	request.Body = io.NopCloser(&r.body)
	request.ContentLength = int64(len(body))
	return r
}

// BenchmarkInfer is a whole request without HTTP, 64 at a time: what the protocol, the queue and the Run cost together. The Run alone
// is BenchmarkBareRun in package session.
func BenchmarkInfer(b *testing.B) {
	s, heldout := start(b), testmodels.Digits(b)
	one := heldout.Instances[0]
	input := `"inputs":[{"name":"image","datatype":"FP32","shape":[1,64],`
	binary := `{"parameters":{"binary_data_output":true},` + input + `"parameters":{"binary_data_size":256}}]}`
	json := `{` + input + `"data":` + numbers(one) + `}]}`
	for _, c := range []struct {
		name string
		body []byte
		head int
	}{
		{"binary", append([]byte(binary), raw(one...)...), len(binary)},
		{"raw", raw(one...), 0},
		{"json", []byte(json), len(json)},
	} {
		b.Run(c.name, func(b *testing.B) {
			var failed atomic.Int64
			b.ReportAllocs()
			b.SetParallelism(32)
			b.RunParallel(func(p *testing.PB) {
				r := newRepeated(b, c.body, c.head)
				w := &sink{header: http.Header{}}
				for p.Next() {
					r.body.Reset(r.bytes)
					clear(w.header)
					if _, code := s.Serve(w, r.request); code != 200 {
						failed.Add(1)
					}
				}
			})
			if n := failed.Load(); n > 0 {
				b.Fatalf("%d requests failed", n)
			}
		})
	}
}
