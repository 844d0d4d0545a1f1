package grpcserver

import (
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"sluicegate/go_infer/internal/pb/serving"
)

func TestCallsAreCountedUnderTensorFlowServingsNames(t *testing.T) {
	var around *Parts
	r := start(t, digits(t), usual, func(_ *Options, p *Parts) { around = p })
	page := func() string {
		w := httptest.NewRecorder()
		around.Around.Registry.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		return w.Body.String()
	}
	ask[serving.PredictResponse](t, r, predict, &serving.PredictRequest{ModelSpec: spec("digits", ""), Inputs: inputs("image", floats(nil, 1, 64))})
	refused(t, r, predict, &serving.PredictRequest{ModelSpec: spec("digits", "none")}, &serving.PredictResponse{}, codes.FailedPrecondition,
		`Serving signature key "none" not found.`)
	refused(t, r, predict, &serving.PredictRequest{ModelSpec: spec("made-up", "")}, &serving.PredictResponse{}, codes.NotFound,
		"Servable not found for request: Latest(made-up)")
	text := page()
	for _, line := range []string{
		`:tensorflow:serving:request_count{model_name="digits",status="OK"} 1`,
		`:tensorflow:serving:request_count{model_name="digits",status="FAILED_PRECONDITION"} 1`,
		`:tensorflow:serving:request_latency_count{model_name="digits",API="Predict",entrypoint="GRPC"} 1`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("%s is not in\n%s", line, text)
		}
	}
	if strings.Contains(text, "made-up") {
		t.Error("a name that a client made up is counted")
	}
}
