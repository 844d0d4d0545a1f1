package server_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/testmodels"
)

// notified is a context that can be ended, and tells who listens.
type notified struct {
	context.Context
	leave    context.CancelFunc
	mu       sync.Mutex
	listener batch.Listener
}

func newNotified() *notified {
	c := &notified{}
	c.Context, c.leave = context.WithCancel(context.Background())
	return c
}

func (c *notified) Notify(listener batch.Listener) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listener = listener
	return c.Err()
}

func (c *notified) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leave()
	if c.listener != nil {
		c.listener.Over(context.Canceled)
	}
}

// later asks with Start as a link does, and returns the answer, or nil if the request was not begun.
func (s *running) later(t *testing.T, ctx context.Context, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body)).WithContext(ctx)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w, done := httptest.NewRecorder(), make(chan bool, 2)
	began := s.Start(w, r, func(answer func()) func() {
		answer()
		return func() { done <- true }
	})
	if began {
		// A link calls after; here the batcher does, or Start itself.
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Fatalf("%s %s is not answered", method, path)
		}
		return w
	}
	if w.Body.Len() > 0 || w.Code != http.StatusOK {
		t.Errorf("%s %s was not begun, but %d was written: %s", method, path, w.Code, w.Body)
	}
	return nil
}

func TestAnAnswerInTwoStepsIsTheOneInOne(t *testing.T) {
	s, heldout := start(t), testmodels.Digits(t)
	s.TFServing.Limits.Priority = "X-Priority"
	one, two := instances(t, heldout.Instances[0]), instances(t, heldout.Instances[:2]...)
	data, err := json.Marshal(heldout.Instances[0])
	if err != nil {
		t.Fatal(err)
	}
	oip := `{"id":"7","inputs":[{"name":"image","datatype":"FP32","shape":[1,64],"data":` + string(data) + `}]`
	const predict, infer = "/v1/models/digits:predict", "/v2/models/digits/infer"
	for _, c := range []struct {
		name, path, body string
		header           []string
		code             int // 0: it may have to wait, and is not begun
	}{
		{"one row", predict, one, nil, 200},
		{"two rows of a version", "/v1/models/digits/versions/1:predict", two, nil, 200},
		{"columns", predict, strings.Replace(two, "instances", "inputs", 1), nil, 200},
		{"not JSON", predict, "x", nil, 400},
		{"another shape", predict, `{"instances":[[1,2]]}`, nil, 400},
		{"an unknown signature", predict, strings.Replace(one, "{", `{"signature_name":"none",`, 1), nil, 400},
		{"a priority that is none", predict, one, []string{"X-Priority", "high"}, 400},
		{"an inference", infer, oip + "}", nil, 200},
		{"an inference, answered in binary", infer, oip + `,"parameters":{"binary_data_output":true}}`, nil, 200},
		{"an inference that has a time limit", infer, oip + `,"parameters":{"timeout":9000000}}`, nil, 200},
		{"an inference without inputs", infer, `{}`, nil, 400},
		{"a raw inference", infer, strings.Repeat("\x00", 256), []string{"Inference-Header-Content-Length", "0"}, 200},

		{"a time limit of its own", predict, one, []string{"X-Request-Timeout", "9s"}, 0},
		{"a compressed body", predict, one, []string{"Content-Encoding", "gzip"}, 0},
		{"a large body", predict, one + strings.Repeat(" ", 16<<10), nil, 0},
		{"a model that there is not", "/v1/models/none:predict", one, nil, 0},
		{"a wish for the load", predict, one, []string{"Endpoint-Load-Metrics-Format", "JSON"}, 0},
		{"another operation", "/v1/models/digits:classify", one, nil, 0},
		{"a length that is none", infer, oip + "}", []string{"Inference-Header-Content-Length", "x"}, 0},
		{"another path", "/predict", one, nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := s.later(t, newNotified(), "POST", c.path, c.body, c.header...)
			if (got != nil) != (c.code != 0) {
				t.Fatalf("begun: %v, want %v", got != nil, c.code != 0)
			}
			if got == nil {
				return
			}
			response, body := s.do(t, "POST", c.path, c.body, c.header...)
			for _, ours := range []string{"Date", "Content-Length"} { // the HTTP server's
				response.Header.Del(ours)
				got.Header().Del(ours)
			}
			if got.Code != c.code || response.StatusCode != c.code || got.Body.String() != body || !reflect.DeepEqual(got.Header(), response.Header) {
				t.Errorf("%d %v %s\nat once %d %v %s\nwant %d", got.Code, got.Header(), got.Body, response.StatusCode, response.Header, body, c.code)
			}
		})
	}
	if s.Registry.InFlight() != 0 {
		t.Errorf("%d are in flight", s.Registry.InFlight())
	}
}

func TestOutsideALinkNothingIsBegun(t *testing.T) {
	s, heldout := start(t), testmodels.Digits(t)
	if s.later(t, context.Background(), "POST", "/v1/models/digits:predict", instances(t, heldout.Instances[0])) != nil {
		t.Error("nobody would say that the client has left")
	}
}

func TestWhoLeavesIsAnsweredToNobodyAndHoldsNothing(t *testing.T) {
	s, heldout := start(t), testmodels.Digits(t)
	body := instances(t, heldout.Instances[0])
	codes := map[int]int{}
	for range 200 {
		ctx := newNotified()
		go ctx.end()
		if w := s.later(t, ctx, "POST", "/v1/models/digits:predict", body); w == nil {
			t.Fatal("it is not begun")
		} else {
			codes[w.Code]++
		}
	}
	if codes[200]+codes[499] != 200 {
		t.Errorf("codes %v, want answers and 499 for those who left before", codes)
	}
}

func TestARequestWhoseAnswerPanicsIsCountedOut(t *testing.T) {
	s, heldout := start(t), testmodels.Digits(t)
	predict, body := "/v1/models/digits:predict", instances(t, heldout.Instances[0])
	lent := s.TFServing
	for _, c := range []struct {
		name string
		ask  func()
	}{
		{"at once", func() {
			s.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", predict, strings.NewReader(body)))
		}},
		{"when it is begun", func() {
			r := httptest.NewRequest("POST", predict, strings.NewReader(body)).WithContext(newNotified())
			s.Start(httptest.NewRecorder(), r, func(func()) func() { return nil })
		}},
	} {
		func() {
			s.TFServing = nil // whoever needs it panics
			defer func() {
				s.TFServing = lent
				if recover() == nil {
					t.Errorf("%s: no panic", c.name)
				}
			}()
			c.ask()
		}()
		if n := s.Registry.InFlight(); n != 0 {
			t.Errorf("%s: %d are in flight", c.name, n)
		}
	}
	ended := make(chan bool, 1)
	r := httptest.NewRequest("POST", predict, strings.NewReader(body)).WithContext(newNotified())
	began := s.Start(broken{httptest.NewRecorder()}, r, func(answer func()) func() {
		defer func() { ended <- recover() != nil }()
		answer()
		return nil
	})
	if !began || !<-ended {
		t.Error("when it is answered: no panic")
	}
	if n := s.Registry.InFlight(); n != 0 {
		t.Errorf("when it is answered: %d are in flight", n)
	}
}

// broken is a http.ResponseWriter that panics when something is written.
type broken struct{ http.ResponseWriter }

func (broken) Write([]byte) (int, error) { panic("on purpose") }
