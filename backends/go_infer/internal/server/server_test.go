package server_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sluicegate/go_infer/internal/api"
	"sluicegate/go_infer/internal/api/oip"
	"sluicegate/go_infer/internal/api/simple"
	"sluicegate/go_infer/internal/api/tfserving"
	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/image"
	"sluicegate/go_infer/internal/metrics"
	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/modelconfig"
	"sluicegate/go_infer/internal/repository"
	"sluicegate/go_infer/internal/server"
	"sluicegate/go_infer/internal/session"
	"sluicegate/go_infer/internal/tensor"
	"sluicegate/go_infer/internal/testmodels"
)

// running is a whole server with the real digits models on a real socket.
type running struct {
	*server.Server
	url  string
	pool *tensor.Pool
}

func start(t *testing.T) *running {
	t.Helper()
	return serve(t, filepath.Join(testmodels.Directory(t), "digits"))
}

func serve(t *testing.T, base string) *running {
	t.Helper()
	return serveWithin(t, base, batch.Limits{MaxBatch: 32, MaxQueue: 1024, Slots: 1, Coalesce: true})
}

func serveWithin(t *testing.T, base string, queue batch.Limits) *running {
	t.Helper()
	pool, registry := tensor.NewPool(), metrics.New()
	repo := repository.New(repository.Options{
		Load: func(name string, version int64, directory string) (*model.Model, error) {
			return model.Load(name, version, directory, model.Options{
				Limits: queue, IntraOp: 1, Pool: pool, Events: registry.Model(name, version),
			})
		},
		Scan: func(context.Context, string) (places []repository.Place, err error) { // 3 does not exist, and is refused
			for _, number := range []int64{1, 2, 3} {
				places = append(places, repository.Place{Number: number, Directory: filepath.Join(base, fmt.Sprint(number))})
			}
			return places, nil
		},
	})
	limits := api.Limits{MaxBody: 1 << 20}
	images := image.NewStage(image.Limits{Workers: 2, Waiting: 8, Pixels: 1 << 20, Pictures: 40, Tensor: 1 << 20})
	s := &server.Server{
		TFServing: &tfserving.Handler{Repository: repo, Limits: limits, Registry: registry},
		OIP:       &oip.Handler{Repository: repo, Limits: limits, Release: "test", Control: repo},
		Simple:    &simple.Handler{Repository: repo, Limits: limits, Images: images},
		Scrape:    modelconfig.MonitoringPath, Registry: registry, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	digits := modelconfig.Model{Name: "digits", BasePath: base, Policy: modelconfig.Policy{All: true}}
	if err := repo.Reload(context.Background(), modelconfig.Config{Models: []modelconfig.Model{digits}}); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Prepare()
	go func() { _ = s.Serve(listener) }()
	s.Ready()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Drain(ctx, 0); err != nil {
			t.Error(err)
		}
		repo.Close()
		if pool.Live() != 0 || session.Live() != 0 {
			t.Errorf("leaked %d slabs and %d TensorFlow tensors", pool.Live(), session.Live())
		}
		pool.Drain()
	})
	return &running{s, "http://" + listener.Addr().String(), pool}
}

func (s *running) do(t *testing.T, method, path, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(content)
}

func instances(t *testing.T, rows ...[]float32) string {
	t.Helper()
	text, err := json.Marshal(map[string]any{"instances": rows})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestPredictInBothFormats(t *testing.T) {
	s, heldout := start(t), testmodels.Digits(t)
	var row struct {
		Predictions []struct {
			Label         int64
			Probabilities []float64
		}
	}
	response, body := s.do(t, "POST", "/v1/models/digits:predict", instances(t, heldout.Instances[:40]...))
	if err := json.Unmarshal([]byte(body), &row); err != nil || response.StatusCode != 200 || len(row.Predictions) != 40 {
		t.Fatalf("%v %s: %v", response.Status, body, err)
	}
	if got := response.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type %q", got)
	}
	for i, p := range row.Predictions {
		if len(p.Probabilities) != 10 || p.Label != heldout.Labels[i] {
			t.Errorf("digit %d: %+v, want %d", i, p, heldout.Labels[i])
		}
	}
	var columns struct {
		Outputs struct {
			Label         []int64
			Probabilities [][]float64
		}
	}
	text := strings.Replace(instances(t, heldout.Instances[:3]...), "instances", "inputs", 1)
	_, body = s.do(t, "POST", "/v1/models/digits/versions/1:predict", text)
	if err := json.Unmarshal([]byte(body), &columns); err != nil || len(columns.Outputs.Label) != 3 || len(columns.Outputs.Probabilities) != 3 {
		t.Fatalf("%s: %v", body, err)
	}
}

func TestAnswersAndRefusals(t *testing.T) {
	s, heldout := start(t), testmodels.Digits(t)
	one := instances(t, heldout.Instances[0])
	for _, c := range []struct {
		method, path, body string
		code               int
		says               string
	}{
		{"GET", "/livez", "", 200, "alive"},
		{"GET", "/readyz", "", 200, "ready"},
		{"GET", "/v1/models/digits", "", 200, `"version": "2",` + "\n   " + `"state": "AVAILABLE"`},
		{"GET", "/v1/models/digits/versions/3", "", 200, "saved_model.pb is missing"},
		{"GET", "/v1/models/digits/versions/9", "", 404, `{"error":"Could not find version 9 of model digits"}`},
		{"GET", "/v1/models/other", "", 404, `{"error":"Could not find any versions of model other"}`},
		{"GET", "/v1/models", "", 400, `{"error":"Missing model name in request."}`},
		{"GET", "/v1/models/digits/metadata", "", 200, `"dtype": "DT_FLOAT"`},
		{"POST", "/v1/models/other:predict", one, 404, `{"error":"Servable not found for request: Latest(other)"}`},
		{"POST", "/v1/models/digits/versions/3:predict", one, 404, `{"error":"Servable not found for request: Specific(digits, 3)"}`},
		{"POST", "/v1/models/digits/labels/stable:predict", one, 400, `{"error":"Unrecognized servable version label: stable"}`},
		{"POST", "/v1/models/digits/versions/99999999999999999999:predict", one, 400, "to numeric."},
		{"POST", "/v1/models/digits/versions/x:predict", one, 400, `{"error":"Malformed request: POST /v1/models/digits/versions/x:predict"}`},
		{"POST", "/v1/models/digits:guess", one, 400, `{"error":"Malformed request: POST /v1/models/digits:guess"}`},
		{"POST", "/v1/models/digits", one, 400, `{"error":"Malformed request: POST /v1/models/digits"}`},
		{"GET", "/v1/models/digits:predict", "", 400, `{"error":"Malformed request: GET /v1/models/digits:predict"}`},
		{"GET", "/v1/other", "", 400, `{"error":"Malformed request: GET /v1/other"}`},
		{"POST", "/v1/models/digits:classify", `{"examples":[{}]}`, 400, "Expected classification signature method_name to be tensorflow/serving/classify. Was: tensorflow/serving/predict"},
		{"POST", "/v1/models/digits:regress", `{"examples":[{}]}`, 400, "Expected regression signature method_name to be tensorflow/serving/regress."},
		{"POST", "/v1/models/digits:predict", `{"signature_name":"x","instances":[1]}`, 400, `Serving signature name: \"x\" not found in signature def`},
		{"POST", "/v1/models/digits:predict", `{"signature_name":1,"instances":[1]}`, 400, "'signature_name' key must be a string value."},
		{"POST", "/v1/models/digits:predict", "{", 400, "JSON Parse error: Missing a name for object member. at offset: 1"},
		{"POST", "/v1/models/digits:predict", strings.Repeat(" ", 1<<20+1), 413, "larger than the 1048576 bytes that --max_body allows"},
		{"GET", "/classify", "", 405, "GET is not allowed on /classify; use POST"},
		{"POST", "/classify", "hello", 415, `no JPEG, PNG, GIF, BMP or WebP; it begins with \"hello\"`},
		{"POST", "/classify", "{}", 400, "no image in the JSON"},
		{"POST", "/classify", `{"image":{"b64":"!"}}`, 400, "image.b64 is not base64"},
		{"POST", "/classify?version=7", "", 404, "Specific(digits, 7)"},
		{"POST", "/classify?version=x", "", 400, "is not a version"},
		{"POST", "/classify?model=other", "", 404, "Latest(other)"},
		{"POST", "/predict", one, 200, `{"model":"digits","version":2,"predictions":[{"label":"` + fmt.Sprint(heldout.Labels[0])},
		{"POST", "/infer?version=1", one, 200, `{"model":"digits","version":1,"predictions":[{"label":"` + fmt.Sprint(heldout.Labels[0])},
		{"POST", "/livez", "", 405, "use GET"},
		{"GET", "/nowhere", "", 404, "nothing at /nowhere"},
	} {
		response, body := s.do(t, c.method, c.path, c.body)
		if response.StatusCode != c.code || !strings.Contains(body, c.says) {
			t.Errorf("%s %s: %d %s\nwant %d %s", c.method, c.path, response.StatusCode, body, c.code, c.says)
		}
		if c.code >= 400 && (!json.Valid([]byte(body)) || response.Header.Get("Content-Type") != "application/json") {
			t.Errorf("%s %s: the refusal is not JSON: %s", c.method, c.path, body)
		}
	}
}

func TestPicturesAreClassifiedRightHoweverTheyAreSent(t *testing.T) {
	s := start(t)
	for file, label := range testmodels.Pictures(t) {
		picture, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		inJSON := `{"image":{"b64":"` + base64.StdEncoding.EncodeToString(picture) + `"}}`
		var form bytes.Buffer
		writer := multipart.NewWriter(&form)
		part, _ := writer.CreateFormFile("image", "digit.png")
		_, _ = part.Write(picture)
		_ = writer.Close()
		for _, c := range []struct{ kind, body string }{
			{"image/png", string(picture)},
			{"application/x-www-form-urlencoded", string(picture)}, // what curl --data-binary says
			{"application/json", inJSON},
			{writer.FormDataContentType(), form.String()},
		} {
			response, body := s.do(t, "POST", "/classify", c.body, "Content-Type", c.kind)
			var answer struct {
				Model       string
				Version     int64
				Predictions []struct {
					Label string
					Score float64
				}
			}
			if err := json.Unmarshal([]byte(body), &answer); err != nil || response.StatusCode != 200 {
				t.Fatalf("%s as %s: %d %s", file, c.kind, response.StatusCode, body)
			}
			if len(answer.Predictions) != 10 || answer.Predictions[0].Label != label || answer.Predictions[0].Score < answer.Predictions[1].Score {
				t.Errorf("%s as %s: %s, want %s first", file, c.kind, body, label)
			}
		}
	}
}

func TestDeadlines(t *testing.T) {
	s, heldout := start(t), testmodels.Digits(t)
	one := instances(t, heldout.Instances[0])
	for value, code := range map[string]int{"10s": 200, "10S": 200, "0ms": 504, "soon": 400, "-1s": 400} {
		response, body := s.do(t, "POST", "/v1/models/digits:predict", one, api.TimeoutHeader, value)
		if response.StatusCode != code {
			t.Errorf("%s: %s: %d %s, want %d", api.TimeoutHeader, value, response.StatusCode, body, code)
		}
	}
	if _, page := s.do(t, "GET", "/metrics", ""); !strings.Contains(page, `version="2",reason="expired"} 1`+"\n") {
		t.Errorf("the work that was late is not counted:\n%s", page)
	}
}

func TestMetricsCountWhatHappened(t *testing.T) {
	s, heldout := start(t), testmodels.Digits(t)
	s.do(t, "POST", "/v1/models/digits:predict", instances(t, heldout.Instances[:5]...))
	s.do(t, "POST", "/v1/models/digits:predict", "{}")
	_, page := s.do(t, "GET", "/metrics", "")
	for _, line := range []string{
		`go_infer_requests_total{endpoint="predict",code="200"} 1`,
		`go_infer_requests_total{endpoint="predict",code="400"} 1`,
		`go_infer_batch_rows_bucket{model="digits",version="2",le="4"} 0`,
		`go_infer_batch_rows_bucket{model="digits",version="2",le="8"} 1`,
		`go_infer_batch_rows_sum{model="digits",version="2"} 5`,
		`go_infer_dropped_total{model="digits",version="2",reason="expired"} 0`,
		`go_infer_dropped_total{model="digits",version="2",reason="gone"} 0`,
		`go_infer_run_duration_seconds_count{model="digits",version="2"} 1`,
	} {
		if !strings.Contains(page, line+"\n") {
			t.Errorf("no %s in\n%s", line, page)
		}
	}
}

func TestDrainFinishesWhatRunsAndClosesConnections(t *testing.T) {
	s, heldout := start(t), testmodels.Digits(t)
	one := instances(t, heldout.Instances[0])
	var group sync.WaitGroup
	begun := make(chan struct{}, 64)
	for range 8 {
		group.Add(1)
		go func() {
			defer group.Done()
			// A client of its own: one kept connection, as a proxy has it. It stops when it is told that the connection closes.
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
			for {
				response, err := client.Post(s.url+"/v1/models/digits:predict", "application/json", strings.NewReader(one))
				if err != nil {
					t.Errorf("a request failed: %v", err)
					return
				}
				_, _ = io.Copy(io.Discard, response.Body)
				response.Body.Close()
				if response.StatusCode != 200 {
					t.Errorf("answered %s", response.Status)
				}
				select {
				case begun <- struct{}{}:
				default:
				}
				if response.Close {
					return
				}
			}
		}()
	}
	for range 64 {
		<-begun
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.Drain(ctx, 300*time.Millisecond); err != nil {
		t.Error(err)
	}
	group.Wait()
}
