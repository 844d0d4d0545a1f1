package server_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sluicegate/go_infer/internal/api"
	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/testmodels"
)

func TestPrioritiesAreReadAndMistakesTold(t *testing.T) {
	s, heldout := start(t), testmodels.Digits(t)
	s.TFServing.Limits.Priority, s.Simple.Limits.Priority = "X-Priority", "X-Priority"
	one := instances(t, heldout.Instances[0])
	for _, path := range []string{"/v1/models/digits:predict", "/predict"} {
		for value, code := range map[string]int{"critical": 200, "default": 200, "batch": 200, "high": 400} {
			response, body := s.do(t, "POST", path, one, "X-Priority", value)
			if response.StatusCode != code || code == 400 && !strings.Contains(body, `X-Priority: \"high\" is not a priority; there are critical, default and batch`) {
				t.Errorf("%s %s: %d %s", path, value, response.StatusCode, body)
			}
		}
	}
}

func TestARefusalSaysWhenToComeAgain(t *testing.T) {
	for after, want := range map[time.Duration]string{0: "1", time.Millisecond: "1", time.Second: "1", 1001 * time.Millisecond: "2", time.Minute: "60"} {
		for code, answer := range map[status.Code]int{status.Unavailable: 503, status.ResourceExhausted: 429} {
			refusal := status.Errorf(code, "full")
			refusal.RetryAfter = after
			w := httptest.NewRecorder()
			if got := api.Refuse(w, refusal); got != answer || w.Header().Get("Retry-After") != want {
				t.Errorf("%v: %d, Retry-After %q, want %d, %s", after, got, w.Header().Get("Retry-After"), answer, want)
			}
		}
	}
	w := httptest.NewRecorder()
	if api.Refuse(w, status.Errorf(status.NotFound, "none")); w.Code != http.StatusNotFound || w.Header().Get("Retry-After") != "" {
		t.Errorf("%d, Retry-After %q", w.Code, w.Header().Get("Retry-After"))
	}
}
