package oip_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluicegate/go_infer/internal/api"
	"sluicegate/go_infer/internal/api/oip"
	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/metrics"
	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/modelconfig"
	"sluicegate/go_infer/internal/repository"
	"sluicegate/go_infer/internal/session"
	"sluicegate/go_infer/internal/tensor"
	"sluicegate/go_infer/internal/testmodels"
)

// service is the protocol over real models.
type service struct {
	*oip.Handler
	registry *metrics.Registry
}

// start serves the digits: 1 and 2 are loaded, 4 cannot be.
func start(t testing.TB) *service {
	t.Helper()
	base := filepath.Join(testmodels.Directory(t), "digits")
	return serve(t, 32, map[string]string{"digits": base}, func(context.Context, string) (places []repository.Place, err error) {
		for _, number := range []int64{1, 2, 4} {
			places = append(places, repository.Place{Number: number, Directory: filepath.Join(base, strconv.FormatInt(number, 10))})
		}
		return places, nil
	})
}

// serve is the protocol over models by their base paths.
func serve(t testing.TB, maxBatch int, bases map[string]string, scan func(context.Context, string) ([]repository.Place, error)) *service {
	t.Helper()
	pool, registry := tensor.NewPool(), metrics.New()
	repo := repository.New(repository.Options{Scan: scan, Load: func(name string, version int64, directory string) (*model.Model, error) {
		return model.Load(name, version, directory, model.Options{
			Limits:  batch.Limits{MaxBatch: maxBatch, MaxQueue: 1024, Slots: 1, Coalesce: true},
			IntraOp: 1, Pool: pool, Events: registry.Model(name, version),
		})
	}})
	config := modelconfig.Config{}
	for name, base := range bases {
		config.Models = append(config.Models, modelconfig.Model{Name: name, BasePath: base, Policy: modelconfig.Policy{All: true}})
	}
	if err := repo.Reload(context.Background(), config); err != nil {
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

// ask makes one request; headers are name, value, ...
func (s *service) ask(t testing.TB, method, path string, body []byte, headers ...string) (*http.Response, []byte) {
	t.Helper()
	request := newRequest(t, body, false, headers...)
	request.Method, request.URL.Path = method, path
	return s.send(t, request)
}

// newRequest is a request for inference of types; streamed, it does not say how long its body is.
func newRequest(t testing.TB, body []byte, streamed bool, headers ...string) *http.Request {
	t.Helper()
	request := httptest.NewRequest("POST", "/v2/models/types/infer", bytes.NewReader(body))
	if streamed {
		request.ContentLength = -1
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	return request
}

func (s *service) send(t testing.TB, request *http.Request) (*http.Response, []byte) {
	t.Helper()
	recorder := httptest.NewRecorder()
	s.Serve(recorder, request)
	response := recorder.Result()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, content
}

// refusal is the text of an error answer, which must be JSON with nothing else in it.
func refusal(t testing.TB, body []byte) string {
	t.Helper()
	var answer map[string]string
	if err := json.Unmarshal(body, &answer); err != nil || len(answer) != 1 || answer["error"] == "" {
		t.Errorf("not an error object: %s", body)
	}
	return answer["error"]
}

func numbers(values []float32) string {
	text, _ := json.Marshal(values)
	return string(text)
}

func raw(values ...float32) (out []byte) {
	for _, value := range values {
		out = binary.LittleEndian.AppendUint32(out, math.Float32bits(value))
	}
	return out
}

type output struct {
	Name, Datatype string
	Shape          []int64
	Data           []any
	Parameters     map[string]any
}

type answer struct {
	ModelName    string `json:"model_name"`
	ModelVersion string `json:"model_version"`
	ID           string
	Outputs      []output
}

// parts takes a binary answer apart: its JSON, and the raw tensors that follow.
func parts(t testing.TB, response *http.Response, body []byte) (a answer, tensors [][]byte) {
	t.Helper()
	if response.StatusCode != 200 {
		t.Fatalf("%s: %s", response.Status, body)
	}
	head := len(body)
	if length := response.Header.Get("Inference-Header-Content-Length"); length != "" {
		head, _ = strconv.Atoi(length)
	}
	if err := json.Unmarshal(body[:head], &a); err != nil {
		t.Fatalf("%v: %s", err, body[:head])
	}
	rest := body[head:]
	for _, o := range a.Outputs {
		if size, given := o.Parameters["binary_data_size"]; given {
			n := int(size.(float64))
			tensors = append(tensors, rest[:n])
			rest = rest[n:]
		}
	}
	if len(rest) > 0 {
		t.Errorf("%d bytes beyond the outputs", len(rest))
	}
	return a, tensors
}

func TestPathsAnswerAsTheProtocolSays(t *testing.T) {
	s := start(t)
	for _, c := range []struct {
		method, path string
		code         int
		want         string
	}{
		{"GET", "/v2", 200, `{"name":"go_infer","version":"1.2.3","extensions":["binary_tensor_data","classification"`},
		{"GET", "/v2/", 200, `{"name":"go_infer"`},
		{"GET", "/v2/health/live", 200, `{"live":true}`},
		{"GET", "/v2/health/ready", 200, `{"live":true,"ready":true}`},
		{"GET", "/v2/models/digits", 200, `{"name":"digits","versions":["1","2"],"platform":"tensorflow_savedmodel",` +
			`"inputs":[{"name":"image","datatype":"FP32","shape":[-1,64]}],` +
			`"outputs":[{"name":"label","datatype":"INT64","shape":[-1]},{"name":"probabilities","datatype":"FP32","shape":[-1,10]}]}`},
		{"GET", "/v2/models/digits/versions/1", 200, `{"name":"digits","versions":["1","2"]`},
		{"GET", "/v2/models/digits/ready", 200, `{"name":"digits","ready":true}`},
		{"GET", "/v2/models/digits/versions/2/ready", 200, `{"name":"digits","ready":true}`},
		{"GET", "/v2/models/digits/config", 200, `{"name":"digits","platform":"tensorflow_savedmodel","backend":"tensorflow",` +
			`"version_policy":{"all":{}},"max_batch_size":32,` +
			`"input":[{"name":"image","data_type":"TYPE_FP32","dims":[64]}],` +
			`"output":[{"name":"label","data_type":"TYPE_INT64","dims":[]},{"name":"probabilities","data_type":"TYPE_FP32","dims":[10]}],` +
			`"instance_group":[{"name":"digits","kind":"KIND_CPU","count":1}],` +
			`"dynamic_batching":{"preferred_batch_size":[32],"max_queue_delay_microseconds":0}}`},
		{"GET", "/v2/models/nope/ready", 404, "Request for unknown model: 'nope' is not found"},
		{"GET", "/v2/models/nope", 404, "Request for unknown model: 'nope' is not found"},
		{"GET", "/v2/models/nope/config", 404, "Request for unknown model: 'nope' is not found"},
		{"GET", "/v2/models/nope/stats", 404, "Request for unknown model: 'nope' is not found"},
		{"POST", "/v2/models/nope/infer", 404, "Request for unknown model: 'nope' is not found"},
		{"GET", "/v2/models/digits/versions/9", 404, "Request for unknown model: 'digits' version 9 is not found"},
		{"GET", "/v2/models/digits/versions/4/ready", 404, "Request for unknown model: 'digits' version 4 is not found"},
		{"GET", "/v2/models/digits/versions/two", 400, "failed to get model version from specified version string 'two', version should be an integral value > 0"},
		{"GET", "/v2/models/digits/nothing", 404, "nothing at /v2/models/digits/nothing"},
		{"GET", "/v2/models//infer", 404, "nothing at /v2/models//infer"},
		{"GET", "/v2/trace/setting", 404, "nothing at /v2/trace/setting"},
		{"POST", "/v2/repository/models/digits/explode", 404, "nothing at "},
		{"POST", "/v2/health/live", 405, "POST is not allowed on /v2/health/live; use GET"},
		{"GET", "/v2/models/digits/infer", 405, "GET is not allowed on /v2/models/digits/infer; use POST"},
		{"POST", "/v2/repository/index", 200, `[{"name":"digits","version":"1","state":"READY","reason":""},` +
			`{"name":"digits","version":"2","state":"READY","reason":""},{"name":"digits","version":"4","state":"UNAVAILABLE","reason":"`},
	} {
		response, body := s.ask(t, c.method, c.path, nil)
		text := string(body)
		if c.code != 200 {
			text = refusal(t, body)
		}
		if response.StatusCode != c.code || !strings.HasPrefix(text, c.want) || response.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s: %d %s, want %d %s", c.method, c.path, response.StatusCode, text, c.code, c.want)
		}
	}
	s.Ready = func() (bool, string) { return false, "draining" }
	if response, body := s.ask(t, "GET", "/v2/health/ready", nil); response.StatusCode != 503 || refusal(t, body) != "the server is not ready: draining" {
		t.Errorf("a server that is not ready: %d %s", response.StatusCode, body)
	}
}

func TestInferTakesFlatNestedAndBinaryData(t *testing.T) {
	s, heldout := start(t), testmodels.Digits(t)
	one, two := heldout.Instances[0], heldout.Instances[1]
	input := func(rows int, rest string) string {
		return fmt.Sprintf(`{"name":"image","datatype":"FP32","shape":[%d,64],%s}`, rows, rest)
	}
	flat := `"data":` + numbers(append(slices.Clone(one), two...))
	for _, c := range []struct {
		name, head string
		tail       []byte
	}{
		{"flat", `{"inputs":[` + input(2, flat) + `]}`, nil},
		{"nested", `{"inputs":[` + input(2, `"data":[`+numbers(one)+`,`+numbers(two)+`]`) + `]}`, nil},
		{"binary", `{"inputs":[` + input(2, `"parameters":{"binary_data_size":512}`) + `]}`, append(raw(one...), raw(two...)...)},
		{"members in another order, with space", ` { "outputs" : [ ] , "inputs" : [ {` + flat + `, "shape":[2 ,64], "datatype":"FP32" , "name":"im\u0061ge"}]} `, nil},
	} {
		for _, output := range []string{"json", "binary"} {
			head := c.head
			if output == "binary" {
				head = strings.Replace(head, "{", `{"id":"42\n","parameters":{"binary_data_output":true},`, 1)
			}
			body := append([]byte(head), c.tail...)
			response, content := s.ask(t, "POST", "/v2/models/digits/infer", body, "Inference-Header-Content-Length", strconv.Itoa(len(head)))
			got, tensors := parts(t, response, content)
			if got.ModelName != "digits" || got.ModelVersion != "2" || len(got.Outputs) != 2 {
				t.Fatalf("%s: %s", c.name, content)
			}
			label, scores := got.Outputs[0], got.Outputs[1]
			if label.Name != "label" || label.Datatype != "INT64" || !slices.Equal(label.Shape, []int64{2}) || scores.Datatype != "FP32" || !slices.Equal(scores.Shape, []int64{2, 10}) {
				t.Errorf("%s: %+v", c.name, got.Outputs)
			}
			if output == "json" {
				if got.ID != "" || len(tensors) > 0 || int64(label.Data[0].(float64)) != heldout.Labels[0] || int64(label.Data[1].(float64)) != heldout.Labels[1] || len(scores.Data) != 20 {
					t.Errorf("%s: %s", c.name, content)
				}
				continue
			}
			if got.ID != "42\n" || response.Header.Get("Content-Type") != "application/octet-stream" || len(tensors) != 2 || len(tensors[1]) != 80 ||
				int64(binary.LittleEndian.Uint64(tensors[0])) != heldout.Labels[0] || int64(binary.LittleEndian.Uint64(tensors[0][8:])) != heldout.Labels[1] {
				t.Errorf("%s, binary: %+v %v", c.name, got, tensors)
			}
		}
	}
}

func TestOutputsAreChosenInTheirOrder(t *testing.T) {
	s, heldout := start(t), testmodels.Digits(t)
	ask := func(rest string) (answer, [][]byte) {
		body := `{"inputs":[{"name":"image","datatype":"FP32","shape":[1,64],"data":` + numbers(heldout.Instances[0]) + `}],` + rest + `}`
		response, content := s.ask(t, "POST", "/v2/models/digits/versions/1/infer", []byte(body))
		return parts(t, response, content)
	}
	got, tensors := ask(`"outputs":[{"name":"probabilities","parameters":{"binary_data":true}},{"name":"label"}]`)
	if len(got.Outputs) != 2 || got.Outputs[0].Name != "probabilities" || got.Outputs[1].Name != "label" || len(tensors) != 1 || len(got.Outputs[1].Data) != 1 || got.ModelVersion != "1" {
		t.Errorf("mixed: %+v", got)
	}
	got, tensors = ask(`"parameters":{"binary_data_output":true},"outputs":[{"name":"label","parameters":{"binary_data":false}}]`)
	if len(got.Outputs) != 1 || len(tensors) != 0 || len(got.Outputs[0].Data) != 1 {
		t.Errorf("an output's own wish goes before the request's: %+v", got)
	}
}

func TestClassification(t *testing.T) {
	s, heldout := start(t), testmodels.Digits(t)
	ask := func(parameters string) (answer, [][]byte) {
		body := `{"inputs":[{"name":"image","datatype":"FP32","shape":[2,64],"data":[` + numbers(heldout.Instances[0]) + `,` + numbers(heldout.Instances[1]) +
			`]}],"outputs":[{"name":"probabilities","parameters":{` + parameters + `}}]}`
		response, content := s.ask(t, "POST", "/v2/models/digits/infer", []byte(body))
		return parts(t, response, content)
	}
	got, _ := ask(`"classification":3`)
	o := got.Outputs[0]
	if o.Datatype != "BYTES" || !slices.Equal(o.Shape, []int64{2, 3}) || len(o.Data) != 6 {
		t.Fatalf("%+v", o)
	}
	for row := range 2 {
		last := math.Inf(1)
		for rank := range 3 {
			piece := strings.Split(o.Data[3*row+rank].(string), ":")
			score, err := strconv.ParseFloat(piece[0], 64)
			if err != nil || len(piece) != 3 || piece[1] != piece[2] || score > last { // the label of class 7 is "7"
				t.Errorf("row %d, rank %d: %q", row, rank, o.Data[3*row+rank])
			}
			if last = score; rank == 0 && piece[1] != strconv.FormatInt(heldout.Labels[row], 10) {
				t.Errorf("row %d: %q is best, want %d", row, o.Data[3*row], heldout.Labels[row])
			}
		}
	}
	got, tensors := ask(`"classification":100,"binary_data":true`)
	if !slices.Equal(got.Outputs[0].Shape, []int64{2, 10}) {
		t.Errorf("more classes than there are: %+v", got.Outputs)
	}
	elements := 0
	for rest := tensors[0]; len(rest) > 0; elements++ {
		rest = rest[4+binary.LittleEndian.Uint32(rest):]
	}
	if elements != 20 {
		t.Errorf("%d BYTES elements, want 20", elements)
	}
}

func TestRawRequests(t *testing.T) {
	s, heldout := start(t), testmodels.Digits(t)
	for rows := 1; rows <= 2; rows++ {
		var body []byte
		for i := range rows {
			body = append(body, raw(heldout.Instances[i]...)...)
		}
		response, content := s.ask(t, "POST", "/v2/models/digits/infer", body, "Inference-Header-Content-Length", "0")
		got, tensors := parts(t, response, content)
		if len(tensors) != 2 || got.Outputs[1].Shape[0] != int64(rows) || int64(binary.LittleEndian.Uint64(tensors[0])) != heldout.Labels[0] {
			t.Errorf("%d rows: %+v", rows, got)
		}
	}
	response, content := s.ask(t, "POST", "/v2/models/digits/infer", make([]byte, 255), "Inference-Header-Content-Length", "0")
	if text := refusal(t, content); response.StatusCode != 400 || !strings.Contains(text, "a raw request of 255 bytes cannot be that") {
		t.Errorf("%d %s", response.StatusCode, text)
	}
}

func TestBadRequestsAreRefusedClearly(t *testing.T) {
	s := start(t)
	zeros := numbers(make([]float32, 64))
	good := `"name":"image","datatype":"FP32","shape":[1,64]`
	data := `,"data":` + zeros
	in := func(input string) string { return `{"inputs":[{` + input + `}]}` }
	out := func(output string) string { return `{"inputs":[{` + good + data + `}],"outputs":[` + output + `]}` }
	with := func(parameters string) string {
		return `{"parameters":` + parameters + `,"inputs":[{` + good + data + `}]}`
	}
	for _, c := range []struct{ body, want string }{
		{``, "JSON Parse error: The document is empty"},
		{`[]`, "JSON Value: [] Is not object"},
		{`{"inputs":`, "JSON Parse error: Invalid value. at offset: 10"},
		{in(good+data) + "x", "JSON Parse error: The document root must not be followed by other values."},
		{`{}`, "expected 1 inputs but got 0 inputs for model 'digits'"},
		{`{"inputs":{}}`, "Unable to parse 'inputs': it must be an array"},
		{`{"inputs":[1]}`, "Unable to parse 'inputs': every input must be an object"},
		{`{"inputs":[]}`, "expected 1 inputs but got 0 inputs for model 'digits'. Got inputs [], but missing required inputs ['image']. Please provide all required inputs."},
		{in(`"datatype":"FP32","shape":[1,64]` + data), "Unable to parse 'name': it must be a string"},
		{in(`"name":"image","shape":[1,64]` + data), "Unable to parse 'datatype': it must be a string"},
		{in(`"name":"image","datatype":"FP32"` + data), "Unable to parse 'shape': it must be an array"},
		{in(`"name":"picture","datatype":"FP32","shape":[1,64]` + data), "unexpected inference input 'picture' for model 'digits'"},
		{in(`"name":"image","datatype":"FP64","shape":[1,64]` + data), "inference input 'image' data-type is 'FP64', but model 'digits' expects 'FP32'"},
		{in(`"name":"image","datatype":"FP32","shape":[1,63]` + data), "unexpected shape for input 'image' for model 'digits'. Expected [-1,64], got [1,63]"},
		{in(`"name":"image","datatype":"FP32","shape":[64]` + data), "unexpected shape for input 'image' for model 'digits'. Expected [-1,64], got [64]"},
		{in(`"name":"image","datatype":"FP32","shape":[-1,64]` + data), "shape [-1,64] of input 'image' has a negative dimension"},
		{in(`"name":"image","datatype":"FP32","shape":[1.5,64]` + data), "Unable to parse 'shape'"},
		{in(`"name":"image","datatype":"FP32","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]` + data), "input 'image' has more than the 8 dimensions that are served"},
		{in(`"name":"image","datatype":"FP32","shape":[0,64],"data":[]`), "inference request batch-size must be > 0 for 'digits'"},
		{in(`"name":"image","datatype":"FP32","shape":[9223372036854775807,64]` + data), "unexpected shape for input 'image' for model 'digits'. The shape [9223372036854775807,64] is not possible"},
		{in(good), "input 'image' must have either 'data' or the parameter 'binary_data_size'"},
		{in(good + data + `,"parameters":{"binary_data_size":256}`), "input 'image' must have either 'data' or the parameter 'binary_data_size'"},
		{in(good + `,"data":5`), "Unable to parse 'data': it must be an array"},
		{in(good + `,"data":[1,2]`), "Encountered list at unexpected size: 2 at level: 0 expected size: 64"},
		{in(good + `,"data":[[1,2]]`), "Encountered list at unexpected size: 2 at level: 1 expected size: 64"},
		{in(good + `,"data":["1"]`), `JSON Value: "1" Type: String is not of expected type: float`},
		{in(good + `,"parameters":{"binary_data_size":256}`), "unexpected size for input 'image', expecting 256 additional bytes for model 'digits'"},
		{in(good + `,"parameters":{"binary_data_size":255}`), "input byte size mismatch for input 'image' for model 'digits'. Expected 256, got 255"},
		{in(good + `,"parameters":{"binary_data_size":-1}`), "parameter 'binary_data_size' must be a whole number"},
		{in(good + `,"parameters":{"shared_memory_region":"x"}`), "'shared_memory_region' is not supported"},
		{`{"inputs":[{` + good + data + `},{` + good + data + `}]}`, "input 'image' already exists in request"},
		{`{"id":5,"inputs":[{` + good + data + `}]}`, "Unable to parse 'id': it must be a string"},
		{out(`{}`), "Unable to parse 'outputs': every output must be an object with a 'name'"},
		{out(`{"name":"scores"}`), "unexpected inference output 'scores' for model 'digits'"},
		{out(`{"name":"label"},{"name":"label"}`), "output 'label' is requested twice"},
		{out(`{"name":"label","parameters":{"binary_data":1}}`), "parameter 'binary_data' must be true or false"},
		{out(`{"name":"label","parameters":{"classification":"3"}}`), "parameter 'classification' must be a whole number"},
		{with(`[]`), "Unable to parse 'parameters': it must be an object"},
		{with(`{"x":{}}`), "parameter 'x' must be a string, a number or a boolean"},
		{with(`{"timeout":"soon"}`), "parameter 'timeout' must be a whole number"},
		{with(`{"priority":-1}`), "parameter 'priority' must be a whole number"},
		{with(`{"sequence_id":7}`), "'sequence_id' is not supported: the model is not stateful"},
		{with(`{"triton_x":1}`), "parameter keys starting with 'triton_' are reserved"},
		{with(`{"signature_name":"other"}`), `Serving signature name: "other" not found in signature def`},
	} {
		response, body := s.ask(t, "POST", "/v2/models/digits/infer", []byte(c.body))
		if text := refusal(t, body); response.StatusCode != 400 || !strings.HasPrefix(text, c.want) {
			t.Errorf("%.200s\n: %d %s\n, want %s", c.body, response.StatusCode, text, c.want)
		}
	}
	if response, body := s.ask(t, "POST", "/v2/models/digits/infer", []byte(with(`{"sequence_id":0,"sequence_start":false,"sequence_end":false}`))); response.StatusCode != 200 {
		t.Errorf("no sequence: %d %s", response.StatusCode, body)
	}
	head := in(good + `,"parameters":{"binary_data_size":256}`)
	for _, c := range []struct {
		length, want string
		tail         int
	}{
		{"x", "Unable to parse Inference-Header-Content-Length, got: x", 256},
		{"-1", "Unable to parse Inference-Header-Content-Length, got: -1", 256},
		{"100000", fmt.Sprintf("inference header size should be in range (0, %d), got: 100000", len(head)+256), 256},
		{strconv.Itoa(len(head)), "unexpected additional input data for model 'digits'", 257},
		{strconv.Itoa(len(head)), "unexpected size for input 'image', expecting 1 additional bytes for model 'digits'", 255},
	} {
		response, body := s.ask(t, "POST", "/v2/models/digits/infer", append([]byte(head), make([]byte, c.tail)...), "Inference-Header-Content-Length", c.length)
		if text := refusal(t, body); response.StatusCode != 400 || text != c.want {
			t.Errorf("head of %s, %d bytes of tensors: %d %s, want %s", c.length, c.tail, response.StatusCode, text, c.want)
		}
	}
}

func TestTimeoutIsADeadline(t *testing.T) {
	s := start(t)
	body := func(timeout string) []byte {
		return []byte(`{"parameters":{"priority":1,"timeout":` + timeout + `},"inputs":[{"name":"image","datatype":"FP32","shape":[1,64],"data":` + numbers(make([]float32, 64)) + `}]}`)
	}
	if response, content := s.ask(t, "POST", "/v2/models/digits/infer", body("60000000")); response.StatusCode != 200 {
		t.Errorf("a minute: %d %s", response.StatusCode, content)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Nanosecond)
	defer cancel()
	<-ctx.Done()
	recorder := httptest.NewRecorder()
	s.Serve(recorder, httptest.NewRequest("POST", "/v2/models/digits/infer", bytes.NewReader(body("0"))).WithContext(ctx))
	if recorder.Code != 504 {
		t.Errorf("a deadline that has passed: %d %s", recorder.Code, recorder.Body)
	}
}

func TestStatisticsCountWhatHappened(t *testing.T) {
	s, heldout := start(t), testmodels.Digits(t)
	for range 3 {
		body := `{"inputs":[{"name":"image","datatype":"FP32","shape":[2,64],"data":[` + numbers(heldout.Instances[0]) + `,` + numbers(heldout.Instances[1]) + `]}]}`
		if response, content := s.ask(t, "POST", "/v2/models/digits/infer", []byte(body)); response.StatusCode != 200 {
			t.Fatalf("%s", content)
		}
	}
	type duration struct{ Count, NS int64 }
	var stats struct {
		Models []struct {
			Name, Version string
			Last          int64               `json:"last_inference"`
			Inferences    int64               `json:"inference_count"`
			Executions    int64               `json:"execution_count"`
			Requests      map[string]duration `json:"inference_stats"`
			Batches       []struct {
				Size                 int `json:"batch_size"`
				Input, Infer, Output duration
			} `json:"batch_stats"`
		} `json:"model_stats"`
	}
	for _, c := range []struct {
		path   string
		models int
	}{{"/v2/models/stats", 2}, {"/v2/models/digits/stats", 2}, {"/v2/models/digits/versions/2/stats", 1}} {
		_, content := s.ask(t, "GET", c.path, nil)
		stats.Models = nil
		if err := json.Unmarshal(content, &stats); err != nil || len(stats.Models) != c.models {
			t.Fatalf("%s: %v: %s", c.path, err, content)
		}
	}
	m := stats.Models[0]
	if m.Name != "digits" || m.Version != "2" || m.Inferences != 6 || m.Executions != 3 || len(m.Batches) != 1 || m.Batches[0].Size != 2 || time.Since(time.UnixMilli(m.Last)) > time.Minute {
		t.Errorf("%+v", m)
	}
	for name, count := range map[string]int64{
		"success": 3, "fail": 0, "queue": 3, "compute_input": 3, "compute_infer": 3, "compute_output": 3, "cache_hit": 0, "cache_miss": 0,
	} {
		if got, known := m.Requests[name]; !known || got.Count != count || (got.NS > 0) != (count > 0) {
			t.Errorf("%s: %+v (%v), want %d", name, got, known, count)
		}
	}
	if whole := m.Requests["success"].NS; whole < m.Requests["queue"].NS+m.Requests["compute_infer"].NS {
		t.Errorf("the parts of a request are longer than the whole: %+v", m.Requests)
	}
}

// controls records what it was told to do.
type controls struct{ loaded, unloaded []string }

func (c *controls) Load(_ context.Context, name string) error {
	c.loaded = append(c.loaded, name)
	return nil
}

func (c *controls) Unload(_ context.Context, name string) error {
	c.unloaded = append(c.unloaded, name)
	return nil
}

func TestModelsAreControlledByRequest(t *testing.T) {
	s := start(t)
	if response, body := s.ask(t, "POST", "/v2/repository/models/digits/load", nil); response.StatusCode != 403 ||
		refusal(t, body) != "failed to load 'digits': explicit model load / unload is not allowed on this server; start it with --allow_model_control, or ask on its --control_port" {
		t.Errorf("without control: %d %s", response.StatusCode, body)
	}
	c := &controls{}
	s.Control = c
	for _, a := range []struct {
		verb, body string
		code       int
	}{
		{"load", "", 200}, {"load", "{}", 200}, {"unload", `{"parameters":{"unload_dependents":false}}`, 200},
		{"load", `{"parameters":{"config":"{}"}}`, 400}, {"load", `{"parameters":{"file:1/model.pb":"AA=="}}`, 400}, {"load", `[`, 400},
		{"unload", `{"parameters":[]}`, 400},
	} {
		if response, body := s.ask(t, "POST", "/v2/repository/models/digits/"+a.verb, []byte(a.body)); response.StatusCode != a.code {
			t.Errorf("%s %s: %d %s", a.verb, a.body, response.StatusCode, body)
		}
	}
	if len(c.loaded) != 2 || len(c.unloaded) != 1 {
		t.Errorf("%+v", c)
	}
	for body, entries := range map[string]int{`{"ready":true}`: 2, `{"ready":false}`: 3, `{}`: 3} {
		var index []map[string]string
		if _, content := s.ask(t, "POST", "/v2/repository/index", []byte(body)); json.Unmarshal(content, &index) != nil || len(index) != entries {
			t.Errorf("index %s: %s, want %d entries", body, content, entries)
		}
	}
	if response, _ := s.ask(t, "POST", "/v2/repository/index", []byte(`{"ready":"yes"}`)); response.StatusCode != 400 {
		t.Errorf("index of 'yes': %d", response.StatusCode)
	}
}
