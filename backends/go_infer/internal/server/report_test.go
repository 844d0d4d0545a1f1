package server

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestALoadReportIsSaidToWhoAsksForIt(t *testing.T) {
	load := func() Load { return Load{Waiting: 3, Running: 5, Capacity: 4} }
	for _, c := range []struct{ format, want string }{
		{"", ""},
		{"BIN", ""},
		{"JSON", `JSON {"application_utilization":1.750,"named_metrics":{"queued":3,"running":4,"capacity":4}}`},
		{"json", `JSON {"application_utilization":1.750,"named_metrics":{"queued":3,"running":4,"capacity":4}}`},
		{"TEXT", "TEXT application_utilization=1.750, named_metrics.queued=3, named_metrics.running=4, named_metrics.capacity=4"},
	} {
		for name, answer := range map[string]http.HandlerFunc{
			"body":   func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hi") },
			"status": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
			"both": func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusCreated)
				_, _ = io.WriteString(w, "hi")
			},
			"flush": func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, "hi")
				if err := http.NewResponseController(w).Flush(); err != nil {
					t.Error(err)
				}
			},
		} {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			if c.format != "" {
				r.Header.Set("endpoint-load-metrics-format", c.format)
			}
			recorder := httptest.NewRecorder()
			answer(reported(recorder, r, load), r)
			got := recorder.Result().Header["Endpoint-Load-Metrics"]
			if strings.Join(got, "|") != c.want {
				t.Errorf("%q, %s: %q instead of %q", c.format, name, got, c.want)
			}
			if text, is := strings.CutPrefix(c.want, "JSON "); is && !json.Valid([]byte(text)) {
				t.Errorf("not JSON: %s", text)
			}
		}
	}
}

func TestWithoutALoadNothingIsSaid(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Endpoint-Load-Metrics-Format", "JSON")
	recorder := httptest.NewRecorder()
	if w := reported(recorder, r, nil); w != http.ResponseWriter(recorder) {
		t.Fatal("it was wrapped")
	}
	empty := &reporting{ResponseWriter: recorder, load: func() Load { return Load{} }}
	empty.WriteHeader(http.StatusOK)
	if got := recorder.Header().Get("Endpoint-Load-Metrics"); !strings.Contains(got, `"running":0`) {
		t.Fatal(got)
	}
}
