package oip_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sluicegate/go_infer/internal/api"
	"sluicegate/go_infer/internal/api/oip"
	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/metrics"
	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/repository"
	"sluicegate/go_infer/internal/session"
	"sluicegate/go_infer/internal/tensor"
	"sluicegate/go_infer/internal/testmodels"
)

// echo serves one of the probes: types gives back what it was given, in every element type; strings are functions of text.
func echo(t testing.TB, name string) *service {
	t.Helper()
	pool, repo, registry := tensor.NewPool(), repository.New(), metrics.New()
	place := repository.Place{Number: 1, Directory: filepath.Join(testmodels.Probes(t), name, "1")}
	repo.Announce(name, []repository.Place{place})
	loader := func(name string, version int64, directory string) (*model.Model, error) {
		return model.Load(name, version, directory, model.Options{
			Limits: batch.Limits{MaxBatch: 4, MaxQueue: 1024, Slots: 1, Coalesce: true}, IntraOp: 1, Pool: pool, Events: registry.Model(name, version),
		})
	}
	if _, err := repo.Load(name, place, loader); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		repo.Close()
		if pool.Live() != 0 || session.Live() != 0 {
			t.Errorf("leaked %d slabs and %d TensorFlow tensors", pool.Live(), session.Live())
		}
		pool.Drain()
	})
	return &service{&oip.Handler{
		Repository: repo, Limits: api.Limits{MaxBody: 1 << 20}, Release: "1.2.3", Ready: func() (bool, string) { return true, "" },
	}, registry}
}

func TestEveryTypeComesBackAsItWent(t *testing.T) {
	s := echo(t, "types")
	for _, c := range []struct {
		signature, datatype, data string
		raw                       []byte
	}{
		{"bool", "BOOL", "[true,false]", []byte{1, 0}},
		{"uint8", "UINT8", "[0,255]", []byte{0, 255}},
		{"uint16", "UINT16", "[1,65535]", []byte{1, 0, 255, 255}},
		{"uint32", "UINT32", "[1,4294967295]", []byte{1, 0, 0, 0, 255, 255, 255, 255}},
		{"uint64", "UINT64", "[1,18446744073709551615]", []byte{1, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255}},
		{"int8", "INT8", "[-128,127]", []byte{128, 127}},
		{"int16", "INT16", "[-1,2]", []byte{255, 255, 2, 0}},
		{"int32", "INT32", "[-1,2]", []byte{255, 255, 255, 255, 2, 0, 0, 0}},
		{"int64", "INT64", "[-1,9223372036854775807]", []byte{255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 127}},
		{"float16", "FP16", "[1.0,-0.5]", []byte{0, 0x3c, 0, 0xb8}},
		{"bfloat16", "BF16", "[1.0,-0.5]", []byte{0x80, 0x3f, 0, 0xbf}},
		{"float32", "FP32", "[1.0,-0.5]", []byte{0, 0, 0x80, 0x3f, 0, 0, 0, 0xbf}},
		{"float64", "FP64", "[1.0,-0.5]", []byte{0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0, 0, 0, 0, 0, 0, 0xe0, 0xbf}},
		{"string", "BYTES", `["","caf\u00e9"]`, []byte("\x00\x00\x00\x00\x05\x00\x00\x00caf\xc3\xa9")},
	} {
		parameters := `"parameters":{"signature_name":"` + c.signature + `","binary_data_output":%v}`
		input := `"inputs":[{"name":"x","datatype":"` + c.datatype + `","shape":[1,2],`
		for _, given := range []string{c.data, "[" + c.data + "]", ""} {
			for _, binary := range []bool{false, true} {
				head := "{" + fmt.Sprintf(parameters, binary) + "," + input + `"data":` + given + "}]}"
				body := []byte(head)
				if given == "" {
					head = "{" + fmt.Sprintf(parameters, binary) + "," + input + `"parameters":{"binary_data_size":` + strconv.Itoa(len(c.raw)) + "}}]}"
					body = append([]byte(head), c.raw...)
				}
				response, content := s.ask(t, "POST", "/v2/models/types/infer", body, "Inference-Header-Content-Length", strconv.Itoa(len(head)))
				got, tensors := parts(t, response, content)
				if o := got.Outputs[0]; o.Name != "y" || o.Datatype != c.datatype || !slices.Equal(o.Shape, []int64{1, 2}) {
					t.Errorf("%s: %+v", c.datatype, o)
				}
				if binary {
					if !bytes.Equal(tensors[0], c.raw) {
						t.Errorf("%s %s: % x, want % x", c.datatype, given, tensors[0], c.raw)
					}
					continue
				}
				var want, data any
				_ = json.Unmarshal([]byte(c.data), &want)
				_ = json.Unmarshal(content[bytes.Index(content, []byte(`"data":`))+7:len(content)-3], &data)
				if fmt.Sprint(data) != fmt.Sprint(want) {
					t.Errorf("%s %s: %v, want %v", c.datatype, given, data, want)
				}
			}
		}
	}
}

func TestBadTensorsOfEveryTypeAreRefused(t *testing.T) {
	s := echo(t, "types")
	for _, c := range []struct{ signature, datatype, data, want string }{
		{"bool", "BOOL", "[1,0]", "JSON Value: 1 Type: Number is not of expected type: bool"},
		{"uint8", "UINT8", "[1,256]", "JSON Value: 256 Type: Number is not of expected type: uint8"},
		{"int32", "INT32", "[1,1.5]", "JSON Value: 1.5 Type: Number is not of expected type: int32"},
		{"float32", "FP32", "[[1],[2]]", "Encountered list at unexpected size: 1 at level: 1 expected size: 2"},
		{"float32", "FP32", "[1,[2]]", "Encountered list at unexpected level"},
		{"string", "BYTES", `["a",1]`, "1 is not a string"},
		{"string", "BYTES", `["a"]`, "'data' at offset "},
		{"string", "BYTES", `[["a"],["b"]]`, "'data' at offset "},
		{"string", "BYTES", `["a","b","c"]`, "'data' at offset "},
	} {
		body := `{"parameters":{"signature_name":"` + c.signature + `"},"inputs":[{"name":"x","datatype":"` + c.datatype + `","shape":[1,2],"data":` + c.data + `}]}`
		response, content := s.ask(t, "POST", "/v2/models/types/infer", []byte(body))
		if text := refusal(t, content); response.StatusCode != 400 || !strings.HasPrefix(text, c.want) {
			t.Errorf("%s %s: %d %s, want %s", c.datatype, c.data, response.StatusCode, text, c.want)
		}
	}
	for _, c := range []struct {
		raw, want string
	}{
		{"\x01\x00\x00\x00a\x02\x00\x00\x00b", "says that it has 2 bytes; 1 follow"},
		{"\x01\x00\x00\x00a\xff\xff\xff\xffb", "says that it has 4294967295 bytes; 1 follow"},
		{"\x01\x00\x00\x00a\x01\x00\x00\x00bc", "1 bytes are left after the 2 strings"},
		{"\x01\x00", "take at least 8 bytes; got 2"},
	} {
		head := `{"parameters":{"signature_name":"string"},"inputs":[{"name":"x","datatype":"BYTES","shape":[1,2],"parameters":{"binary_data_size":` + strconv.Itoa(len(c.raw)) + `}}]}`
		response, content := s.ask(t, "POST", "/v2/models/types/infer", []byte(head+c.raw), "Inference-Header-Content-Length", strconv.Itoa(len(head)))
		if text := refusal(t, content); response.StatusCode != 400 || !strings.Contains(text, c.want) {
			t.Errorf("%q: %d %s, want %s", c.raw, response.StatusCode, text, c.want)
		}
	}
}

func TestBytesThatAreNotTextAreNotJSON(t *testing.T) {
	s := echo(t, "types")
	ask := func(binary bool) (int, []byte) {
		head := `{"parameters":{"signature_name":"string","binary_data_output":` + strconv.FormatBool(binary) +
			`},"inputs":[{"name":"x","datatype":"BYTES","shape":[1,2],"parameters":{"binary_data_size":10}}]}`
		response, content := s.ask(t, "POST", "/v2/models/types/infer", []byte(head+"\x01\x00\x00\x00\xff\x01\x00\x00\x00\x00"), "Inference-Header-Content-Length", strconv.Itoa(len(head)))
		return response.StatusCode, content
	}
	if code, content := ask(true); code != 200 || !bytes.HasSuffix(content, []byte("\x01\x00\x00\x00\xff\x01\x00\x00\x00\x00")) {
		t.Errorf("binary: %d %q", code, content)
	}
	if code, content := ask(false); code != 400 || !strings.Contains(refusal(t, content), "not UTF-8") {
		t.Errorf("json: %d %q", code, content)
	}
}

func TestRawRequestOfText(t *testing.T) {
	s := echo(t, "strings")
	response, content := s.ask(t, "POST", "/v2/models/strings/infer", []byte("any \x00 bytes"), "Inference-Header-Content-Length", "0")
	_, tensors := parts(t, response, content)
	if !slices.ContainsFunc(tensors, func(raw []byte) bool { return string(raw) == "\x0b\x00\x00\x00any \x00 bytes" }) {
		t.Errorf("%q", tensors)
	}
}

// A large body is read straight to its tensor, one of unknown length is not: the answer is the same.
func TestLargeBodiesOfEveryKindOfTransfer(t *testing.T) {
	s := echo(t, "types")
	rows := 3000
	data := bytes.Repeat([]byte{0, 0, 0x80, 0x3f, 0, 0, 0, 0xbf}, rows)
	head := fmt.Sprintf(`{"parameters":{"signature_name":"float32","binary_data_output":true},"inputs":[{"name":"x","datatype":"FP32","shape":[%d,2],"parameters":{"binary_data_size":%d}}]}`, rows, len(data))
	for _, length := range []string{"known", "unknown"} {
		request := newRequest(t, append([]byte(head), data...), length == "unknown", "Inference-Header-Content-Length", strconv.Itoa(len(head)))
		response, content := s.send(t, request)
		if _, tensors := parts(t, response, content); !bytes.Equal(tensors[0], data) {
			t.Errorf("%s length: other data came back", length)
		}
	}
	request := newRequest(t, append([]byte(head), data[:len(data)-1]...), false, "Inference-Header-Content-Length", strconv.Itoa(len(head)))
	request.ContentLength = int64(len(head) + len(data)) // says one byte more than comes
	if response, content := s.send(t, request); response.StatusCode != 400 || !strings.Contains(refusal(t, content), "the body ended before Content-Length") {
		t.Errorf("a body that ends early: %d %s", response.StatusCode, content)
	}
	request = newRequest(t, make([]byte, 1<<20+1), false, "Inference-Header-Content-Length", "10")
	if response, content := s.send(t, request); response.StatusCode != 413 {
		t.Errorf("a body that is too large: %d %s", response.StatusCode, content)
	}
}

// FuzzInfer: whatever comes as a body, however it is cut into JSON and raw tensors, nothing crashes and nothing leaks; what is refused
// says so in JSON.
func FuzzInfer(f *testing.F) {
	s := echo(f, "types")
	for _, signature := range []string{"float32", "string", "bool", "int64", "float16"} {
		head := `{"id":"1","parameters":{"signature_name":"` + signature + `","binary_data_output":true},"inputs":[{"name":"x","datatype":"`
		for _, rest := range []string{
			`FP32","shape":[1,2],"data":[[1,2e3]]}]}`, `BYTES","shape":[1,2],"data":["a","\u00e9"]}]}`, `BOOL","shape":[2,2],"data":[true,false,true,true]}]}`,
			`FP32","shape":[1,2],"parameters":{"binary_data_size":8}}]}`, `BYTES","shape":[1,2],"parameters":{"binary_data_size":10}}],"outputs":[{"name":"y"}]}`,
			`INT64","shape":[1,2],"data":[1,-2]}],"outputs":[{"name":"y","parameters":{"classification":1}}]}`,
		} {
			f.Add([]byte(head+rest+"\x01\x00\x00\x00a\x01\x00\x00\x00b"), len(head+rest))
			f.Add([]byte(head+rest), -1)
		}
	}
	f.Add([]byte("\x00\x00\x80\x3f\x00\x00\x80\x3f"), 0)
	f.Fuzz(func(t *testing.T, body []byte, head int) {
		request := newRequest(t, body, false)
		if head >= 0 {
			request.Header.Set("Inference-Header-Content-Length", strconv.Itoa(head))
		}
		response, content := s.send(t, request)
		switch code := response.StatusCode; {
		case code >= 500 && code != 501:
			t.Errorf("%d %s for %s", code, content, base64.StdEncoding.EncodeToString(body))
		case code != 200:
			refusal(t, content)
		}
	})
}
