package tfserving

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluicegate/go_infer/internal/api"
	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/jsontensor"
	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/modelconfig"
	"sluicegate/go_infer/internal/repository"
	"sluicegate/go_infer/internal/session"
	"sluicegate/go_infer/internal/tensor"
	"sluicegate/go_infer/internal/testmodels"
)

type unheard struct{}

func (unheard) Batch(int, int)    {}
func (unheard) Ran(time.Duration) {}
func (unheard) Dropped(bool)      {}

// asks is a server of every probe.
type asks func(method, path, body string) (int, string)

func serve(t *testing.T) asks {
	t.Helper()
	pool := tensor.NewPool()
	repo := repository.New(repository.Options{Load: func(name string, version int64, directory string) (*model.Model, error) {
		return model.Load(name, version, directory, model.Options{
			Limits: batch.Limits{MaxBatch: 32, MaxQueue: 1024, Slots: 1, Coalesce: true}, IntraOp: 1, Pool: pool, Events: unheard{},
		})
	}})
	config := modelconfig.Config{}
	for _, name := range []string{"strings", "types", "iris", "iris-width"} {
		base := filepath.Join(testmodels.Probes(t), name)
		config.Models = append(config.Models, modelconfig.Model{Name: name, BasePath: base, Policy: modelconfig.Policy{All: true}})
	}
	if err := repo.Reload(context.Background(), config); err != nil {
		t.Fatal(err)
	}
	h := &Handler{Repository: repo, Limits: api.Limits{MaxBody: 1 << 20}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.Serve(w, r) }))
	t.Cleanup(func() {
		server.Close()
		repo.Close()
		if pool.Live() != 0 || session.Live() != 0 {
			t.Errorf("leaked %d slabs and %d TensorFlow tensors", pool.Live(), session.Live())
		}
		pool.Drain()
	})
	return func(method, path, body string) (int, string) {
		t.Helper()
		request, err := http.NewRequest(method, server.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		answer, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(answer)
	}
}

// results sends examples and decodes the answer.
func results[T any](t *testing.T, ask asks, path string, body any) (answer struct{ Results []T }) {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	code, said := ask("POST", path, string(text))
	if code != 200 {
		t.Fatalf("%d %s", code, said)
	}
	if err := json.Unmarshal([]byte(said), &answer); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	return answer
}

func TestFlowersAreNamedAsWellAsWhenTheModelWasMade(t *testing.T) {
	ask, flowers := serve(t), testmodels.Iris(t)
	answer := results[[][2]any](t, ask, "/v1/models/iris:classify", map[string]any{"examples": flowers.Examples})
	right := 0
	for i, classes := range answer.Results {
		best, sum := 0, 0.0
		for c, class := range classes {
			if class[1].(float64) > classes[best][1].(float64) {
				best = c
			}
			sum += class[1].(float64)
		}
		if len(classes) != 3 || math.Abs(sum-1) > 1e-5 {
			t.Fatalf("flower %d: %v", i, classes)
		}
		if classes[best][0] == flowers.Labels[i] {
			right++
		}
	}
	if got := float64(right) / float64(len(flowers.Labels)); math.Abs(got-flowers.Accuracy) > .001 {
		t.Errorf("accuracy %.4f, want %.4f", got, flowers.Accuracy)
	}
}

func TestPetalsAreMeasuredAsWellAsWhenTheModelWasMade(t *testing.T) {
	ask, flowers := serve(t), testmodels.Iris(t)
	for _, c := range []struct{ path, signature string }{
		{"/v1/models/iris-width:regress", ""},
		{"/v1/models/iris:regress", "regress"},
		{"/v1/models/iris/versions/1:regress", "regress_column"}, // its output is [rows, 1]
	} {
		body := map[string]any{"examples": flowers.Examples}
		if c.signature != "" {
			body["signature_name"] = c.signature
		}
		sum := 0.0
		for i, width := range results[float64](t, ask, c.path, body).Results {
			sum += (width - flowers.Widths[i]) * (width - flowers.Widths[i])
		}
		if got := math.Sqrt(sum / float64(len(flowers.Widths))); math.Abs(got-flowers.Error) > .001 {
			t.Errorf("%s: error %.4f cm, want %.4f", c.path, got, flowers.Error)
		}
	}
}

func TestTheContextGivesFeaturesThatAnExampleHasNot(t *testing.T) {
	ask := serve(t)
	const full = `{"examples":[{"sepal_length":5.1,"sepal_width":3.5,"petal_length":1.4},{"sepal_length":6.3,"sepal_width":2.5,"petal_length":5.0}]}`
	const shared = `{"context":{"sepal_width":3.5,"petal_length":1.4,"note":"x"},
		"examples":[{"sepal_length":5.1},{"sepal_length":6.3,"sepal_width":2.5,"petal_length":5.0}]}`
	_, want := ask("POST", "/v1/models/iris:classify", full)
	code, got := ask("POST", "/v1/models/iris:classify", shared)
	if code != 200 || got != want {
		t.Errorf("with context %d %s\nwithout %s", code, got, want)
	}
}

func TestAnswers(t *testing.T) {
	ask := serve(t)
	flower := `{"sepal_length":5.1,"sepal_width":[3.5],"petal_length":1.4}`
	for _, c := range []struct {
		path, body, answer string
		code               int
	}{
		{"strings:predict", `{"instances":["a",{"b64":"Yg=="}]}`, `{"predictions":[{"echo_bytes":{"b64":"YQ=="},"length":1,"upper":"A"},{"echo_bytes":{"b64":"Yg=="},"length":1,"upper":"B"}]}`, 200},
		{"strings:predict", `{"inputs":["a"]}`, `{"outputs":{"echo_bytes":[{"b64":"YQ=="}],"length":[1],"upper":["A"]}}`, 200},
		{"strings:predict", `{"signature_name":"scalar","inputs":"one"}`, `{"outputs":"ONE"}`, 200},
		{"strings:predict", `{"signature_name":"scalar","inputs":{"text":"one"}}`, `{"outputs":"ONE"}`, 200},
		{"strings:predict", `{"signature_name":"join","instances":[["a","b"],["c","d"]]}`, `{"predictions":["a b","c d"]}`, 200},
		{"strings:predict", `{"signature_name":"tag","instances":[{"text":"a","number":1},{"number":2,"text":"b"}]}`, `{"predictions":["a#1","b#2"]}`, 200},
		{"strings:predict", `{"signature_name":"tag","inputs":{"text":["a"],"number":[1]}}`, `{"outputs":["a#1"]}`, 200},
		{"types:predict", `{"signature_name":"float16","instances":[[0.5,-65504]]}`, `{"predictions":[[0.5,-65504.0]]}`, 200},
		{"types:predict", `{"signature_name":"bfloat16","instances":[[1.00390625,NaN]]}`, `{"predictions":[[1.0,NaN]]}`, 200},
		{"types:predict", `{"signature_name":"float32","instances":[[1e-45,-Infinity]]}`, `{"predictions":[[1e-45,-Infinity]]}`, 200},
		{"types:predict", `{"signature_name":"float64","instances":[[0.1,1e300]]}`, `{"predictions":[[0.1,1e+300]]}`, 200},
		{"types:predict", `{"signature_name":"int8","instances":[[-128,127]]}`, `{"predictions":[[-128,127]]}`, 200},
		{"types:predict", `{"signature_name":"int16","instances":[[-32768,32767]]}`, `{"predictions":[[-32768,32767]]}`, 200},
		{"types:predict", `{"signature_name":"int32","instances":[[-2147483648,2147483647]]}`, `{"predictions":[[-2147483648,2147483647]]}`, 200},
		{"types:predict", `{"signature_name":"int64","inputs":[[-9223372036854775808,9223372036854775807]]}`, `{"outputs":[[-9223372036854775808,9223372036854775807]]}`, 200},
		{"types:predict", `{"signature_name":"uint8","instances":[[0,255]]}`, `{"predictions":[[0,255]]}`, 200},
		{"types:predict", `{"signature_name":"uint16","instances":[[0,65535]]}`, `{"predictions":[[0,65535]]}`, 200},
		{"types:predict", `{"signature_name":"uint32","instances":[[0,4294967295]]}`, `{"predictions":[[0,4294967295]]}`, 200},
		{"types:predict", `{"signature_name":"uint64","instances":[[0,18446744073709551615]]}`, `{"predictions":[[0,18446744073709551615]]}`, 200},
		{"types:predict", `{"signature_name":"bool","instances":[[true,false]]}`, `{"predictions":[[true,false]]}`, 200},
		{"types:predict", `{"signature_name":"string","instances":[["é","\n"]]}`, `{"predictions":[["é","\n"]]}`, 200},

		{"types:predict", `{"signature_name":"complex64","instances":[[1,2]]}`, `{"error":"signature \"complex64\" cannot be served: tensor \"x\" is complex64"}`, 501},
		{"types:predict", `{"signature_name":"qint8","instances":[[1,2]]}`, `{"error":"signature \"qint8\" cannot be served: tensor \"x\" is qint8"}`, 501},
		{"types:predict", `{"instances":[[1,2]]}`, `{"error":"Serving signature name: \"serving_default\" not found in signature def"}`, 400},
		{"strings:predict", `{"signature_name":7,"instances":["a"]}`, `{"error":"JSON Value: {\"signature_name\":7,\"instances\":[\"a\"]} not formatted correctly. 'signature_name' key must be a string value."}`, 400},
		{"strings:predict", `{"signature_name":"scalar","instances":["one"]}`, `{"predictions":["ONE"]}`, 200},
		{"strings:predict", `{"signature_name":"numbers","instances":["one"]}`, `StringToNumberOp could not correctly convert string: one`, 400},

		{"iris:classify", `{"examples":[` + flower + `]}`, `{"results":[[["setosa",0.9`, 200},
		{"iris:classify", `{"signature_name":"scores","examples":[` + flower + `]}`, `{"results":[[["",0.9`, 200},
		{"iris:classify", `{"signature_name":"classes","examples":[` + flower + `]}`, `{"results":[[["setosa",0.0],["versicolor",0.0],["virginica",0.0]]]}`, 200},
		{"iris-width:regress", `{"examples":[` + flower + `,` + flower + `]}`, `{"results":[0.2`, 200},
		{"iris:predict", `{"signature_name":"notes","instances":[{"b64":"ChMKEQoEbm90ZRIJCgcKBWhlbGxv"}]}`, `Feature: petal_length (data type: float) is required but could not be found.`, 400},
		{"iris:classify", `{"examples":[{"sepal_length":5}]}`, `Data types don't match. Data type: int64 but expected type: float`, 400},
		{"iris:classify", `{"examples":[{"sepal_length":5.1}]}`, `is required but could not be found.`, 400},
		{"iris:classify", `{"examples":[{"a":[1,2.5]}]}`, `{"error":"Unexpected element type in feature: a expecting type: int64 at offset: 21"}`, 400},
		{"iris:classify", `{"examples":[{"a":[true,"x"]}]}`, `Unexpected element type in feature: a expecting type: int64`, 400},
		{"iris:classify", `{"examples":[{"a":null}]}`, `Feature: a has element with unexpected JSON type: Null`, 400},
		{"iris:classify", `{"examples":[{"a":[[1]]}]}`, `Feature: a has element with unexpected JSON type: Array`, 400},
		{"iris:classify", `{"examples":[{"a":{"b":1}}]}`, `Feature: a has element with unexpected JSON type: Object`, 400},
		{"iris:classify", `{"examples":[{"a":9223372036854775808}]}`, `Feature: a has uint64 element. Only int64 is supported.`, 400},
		{"iris:classify", `{"examples":[{"a":1e39}]}`, `Cannot convert JSON value: 1e39 to float without loss of precision.`, 400},
		{"iris:classify", `{"examples":[{"a":{"b64":"?"}}]}`, `Unable to base64 decode`, 400},
		{"iris:classify", `{"examples":[1]}`, `Example must be JSON object but got JSON Number`, 400},
		{"iris:classify", `{"context":[],"examples":[{}]}`, `Example must be JSON object but got JSON Array`, 400},
		{"iris:classify", `{"examples":[]}`, `'examples' value is an empty array`, 400},
		{"iris:classify", `{"examples":{}}`, `Expecting 'examples' value to be an list/array`, 400},
		{"iris:classify", `{"instances":[{}]}`, `{"error":"JSON Value: {\"instances\":[{}]} When method is classify, key 'examples' is expected and was not found"}`, 400},
		{"iris:regress", `{"examples":[{}]}`, `{"error":"Expected regression signature method_name to be tensorflow/serving/regress. Was: tensorflow/serving/classify"}`, 400},
		{"iris-width:classify", `{"examples":[{}]}`, `{"error":"Expected classification signature method_name to be tensorflow/serving/classify. Was: tensorflow/serving/regress"}`, 400},
		{"iris:classify", `{"signature_name":"x","examples":[{}]}`, `{"error":"No signature was found with the name: x"}`, 400},
		{"roses:classify", `{"examples":[{}]}`, `Servable not found for request: Latest(roses)`, 404},
		{"iris/versions/9:classify", `{"examples":[{}]}`, `Servable not found for request: Specific(iris, 9)`, 404},
		{"iris/labels/canary:regress", `{"examples":[{}]}`, `{"error":"Unrecognized servable version label: canary"}`, 400},
		{"iris/labels/a/b:regress", `{}`, `{"error":"Malformed request: POST /v1/models/iris/labels/a/b:regress"}`, 400},
		{"iris:guess", `{}`, `{"error":"Malformed request: POST /v1/models/iris:guess"}`, 400},
	} {
		code, said := ask("POST", "/v1/models/"+c.path, c.body)
		exact := strings.HasSuffix(c.answer, "}") && strings.HasPrefix(c.answer, "{")
		if code != c.code || exact && said != c.answer+"\n" || !exact && !strings.Contains(said, c.answer) {
			t.Errorf("%s %s\n got %d %swant %d %s", c.path, c.body, code, said, c.code, c.answer)
		}
	}
}

// Features of strings are read by TensorFlow's own parser, which gives them back.
func TestFeaturesAreReadByTensorFlow(t *testing.T) {
	ask := serve(t)
	for _, c := range []struct{ feature, note string }{
		{`"hello"`, "hello"}, {`["hello"]`, "hello"}, {`{"b64":"aGVsbG8="}`, "hello"}, {`"\u00e9"`, "é"}, {`[]`, ""}, {`""`, ""},
		{`"` + strings.Repeat("long ", 1000) + `"`, strings.Repeat("long ", 1000)},
	} {
		body := fmt.Sprintf(`{"examples":[{"sepal_length":5.1,"sepal_width":3.5,"petal_length":1.4,"note":%s}]}`, c.feature)
		document, err := jsontensor.Scan([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		serialized, err := document.ReadExamples()
		if err != nil {
			t.Fatal(err)
		}
		encoded := base64.StdEncoding.EncodeToString(serialized[0])
		_, said := ask("POST", "/v1/models/iris:predict", `{"signature_name":"notes","instances":[{"b64":"`+encoded+`"}]}`)
		if want := `{"predictions":["` + c.note + "\"]}\n"; said != want {
			t.Errorf("%.40s came back as %.60s", c.feature, said)
		}
	}
}

func TestMetadataNamesWhatTheModelTakes(t *testing.T) {
	ask := serve(t)
	code, said := ask("GET", "/v1/models/iris/metadata", "")
	var answer struct {
		Spec     map[string]string `json:"model_spec"`
		Metadata struct {
			Outer struct {
				Signatures map[string]signatureJSON `json:"signature_def"`
			} `json:"signature_def"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal([]byte(said), &answer); err != nil || code != 200 {
		t.Fatalf("%d %v", code, err)
	}
	classify := answer.Metadata.Outer.Signatures["serving_default"]
	input := classify.Inputs["inputs"]
	if fmt.Sprint(answer.Spec) != "map[name:iris signature_name: version:1]" || classify.Method != "tensorflow/serving/classify" ||
		input.DType != "DT_STRING" || input.Shape.Dim[0].Size != "-1" || input.Name != "examples:0" || len(classify.Outputs) != 2 {
		t.Errorf("got %s", said)
	}
}
