package server_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"sluicegate/go_infer/internal/server"
	"sluicegate/go_infer/internal/testmodels"
)

func TestOpenInferenceProtocolTellsItsLoad(t *testing.T) {
	s, heldout := start(t), testmodels.Digits(t)
	s.Load = func() server.Load { return server.Load{Waiting: 3, Running: 2, Capacity: 32} }
	data, err := json.Marshal(heldout.Instances[0])
	if err != nil {
		t.Fatal(err)
	}
	body := `{"inputs":[{"name":"image","datatype":"FP32","shape":[1,64],"data":` + string(data) + `}]}`
	response, content := s.do(t, "POST", "/v2/models/digits/infer", body, "endpoint-load-metrics-format", "JSON")
	if response.StatusCode != http.StatusOK || !strings.HasPrefix(content, `{"model_name":"digits","model_version":"2","outputs":[`) {
		t.Fatalf("%s: %s", response.Status, content)
	}
	report := response.Header.Get("Endpoint-Load-Metrics")
	if report != `JSON {"application_utilization":0.125,"named_metrics":{"queued":3,"running":1,"capacity":32}}` {
		t.Errorf("load report %q", report)
	}
	if _, page := s.do(t, "GET", "/metrics", ""); !strings.Contains(page, `go_infer_requests_total{endpoint="model_infer",code="200"} 1`+"\n") {
		t.Error("the request is not counted")
	}
}

func TestOpenInferenceProtocolUnloadsAndLoads(t *testing.T) {
	s := start(t)
	for _, step := range []struct {
		method, path string
		code         int
	}{
		{"GET", "/v2/models/digits/ready", 200},
		{"POST", "/v2/repository/models/digits/unload", 200},
		{"GET", "/v2/models/digits/ready", 404},
		{"GET", "/v2/models/digits/stats", 404},
		{"POST", "/v2/repository/models/digits/load", 200},
		{"GET", "/v2/models/digits/ready", 200},
		{"POST", "/v2/repository/models/nobody/load", 404},
	} {
		if response, body := s.do(t, step.method, step.path, ""); response.StatusCode != step.code {
			t.Errorf("%s %s: %s %s, want %d", step.method, step.path, response.Status, body, step.code)
		}
	}
}
