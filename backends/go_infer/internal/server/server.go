// Package server joins the protocols to one HTTP listener, and knows how to start and how to stop.
//
// Requests come over HTTP/1.1 or, multiplexed, over links (package link) on the same port; both end here.
//
// Life: listen -> load (alive, not ready) -> ready -> drain (not ready, every answer closes its connection) -> stop.
// Invariants: a request that was accepted is answered; no connection waits without a timeout on any phase.
package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"sluicegate/go_infer/internal/api"
	"sluicegate/go_infer/internal/api/oip"
	"sluicegate/go_infer/internal/api/simple"
	"sluicegate/go_infer/internal/api/tfserving"
	"sluicegate/go_infer/internal/http1"
	"sluicegate/go_infer/internal/link"
	"sluicegate/go_infer/internal/metrics"
	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/stop"
	"sluicegate/go_infer/internal/trace"
)

// Server is one listener and what it answers.
type Server struct {
	TFServing *tfserving.Handler
	OIP       *oip.Handler // nil: not spoken
	Simple    *simple.Handler
	Registry  *metrics.Registry
	Log       *slog.Logger
	HTTP      http1.Limits // zero: the defaults
	LogEach   bool         // one line per request
	Scrape    string       // where metrics are beside /metrics; "": nowhere
	Link      *link.Server // nil: an Upgrade to the link is ignored, as HTTP allows
	Load      func() Load  // how busy the server is; nil: not told
	Spans     trace.Sink   // of requests that their caller traces; nil: nobody is told

	ready    atomic.Bool
	draining atomic.Bool
	http     http1.Server
}

// Prepare makes the HTTP server; call it once, before Serve and Drain, which may come from different goroutines.
func (s *Server) Prepare() *Server {
	if s.OIP != nil {
		s.OIP.Ready = s.Readiness
	}
	if s.HTTP == (http1.Limits{}) {
		s.HTTP = http1.Defaults()
	}
	s.HTTP.MaxUnread = int64(s.TFServing.Limits.MaxBody) // of who is refused by the head: else a client that still writes would not read why
	s.http = http1.Server{Handler: s, Limits: s.HTTP, Log: s.Log}
	return s
}

// Serve answers on the listener until Drain; then it returns http.ErrServerClosed.
func (s *Server) Serve(listener net.Listener) error { return s.http.Serve(listener) }

// Ready says that models are loaded.
func (s *Server) Ready() { s.ready.Store(true) }

// Drain stops the server gently: from now on it is not ready and every answer closes its connection. For grace it still accepts, so
// that clients with kept connections learn it from an answer and not from a reset; then it finishes what runs, until ctx ends: then that is
// cut off and the context's error returned.
func (s *Server) Drain(ctx context.Context, grace time.Duration) error {
	s.draining.Store(true)
	if s.Link != nil {
		s.Link.Drain()
	}
	select {
	case <-time.After(grace):
	case <-ctx.Done():
	}
	links := make(chan error, 1)
	go func() {
		if s.Link != nil {
			links <- s.Link.Stop(ctx)
		} else {
			links <- nil
		}
	}()
	return errors.Join(s.http.Shutdown(ctx), <-links)
}

// CutOff is whom Drain has cut off.
func (s *Server) CutOff() stop.Cut {
	cut := s.http.CutOff()
	if s.Link != nil {
		cut = cut.Plus(s.Link.CutOff())
	}
	return cut
}

// ServeHTTP routes one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.Link != nil && link.Wanted(r) {
		s.Link.Offer(w, r)
		return
	}
	begun := s.Registry.Begin()
	if s.draining.Load() {
		w.Header().Set("Connection", "close")
	}
	endpoint, code := metrics.Other, http.StatusInternalServerError // if it panics
	func() {
		defer func() { s.Registry.End(endpoint, code, begun) }()
		endpoint, code = s.route(reported(w, r, s.Load), r)
	}()
	if s.Spans != nil {
		s.span(r, code, begun)
	}
	if s.LogEach {
		s.Log.Info("request", "method", r.Method, "path", r.URL.Path, "code", code, "ms", float64(time.Since(begun).Microseconds())/1e3)
	}
}

// span tells of a request whose caller traces it.
func (s *Server) span(r *http.Request, code int, begun time.Time) {
	span := trace.Begin(r.Header.Get("Traceparent"), begun)
	if span == nil {
		return
	}
	span.Name, span.Ended, span.Failed = r.Method+" "+r.URL.Path, time.Now().UnixNano(), code >= 500
	span.Facts = map[string]any{"http.request.method": r.Method, "url.path": r.URL.Path, "http.response.status_code": code}
	s.Spans.Put(span)
}

func (s *Server) route(w http.ResponseWriter, r *http.Request) (metrics.Endpoint, int) {
	path := r.URL.Path
	if strings.HasPrefix(path, tfserving.Prefix) {
		return s.TFServing.Serve(w, r)
	}
	if s.OIP != nil && strings.HasPrefix(path, oip.Prefix) && (len(path) == len(oip.Prefix) || path[len(oip.Prefix)] == '/') {
		return s.OIP.Serve(w, r)
	}
	if endpoint, code, known := s.Simple.Serve(w, r); known {
		return endpoint, code
	}
	switch path {
	case "/livez":
		return metrics.Health, s.health(w, r, true, "alive")
	case "/readyz":
		ready, why := s.Readiness()
		return metrics.Health, s.health(w, r, ready, why)
	case "/metrics", s.Scrape:
		if err := get(w, r); err != nil {
			return metrics.Metrics, api.Refuse(w, err)
		}
		s.Registry.ServeHTTP(w, r)
		return metrics.Metrics, http.StatusOK
	}
	if strings.HasPrefix(path, "/v1/") {
		return metrics.Other, api.Refuse(w, status.Errorf(status.InvalidArgument, "Malformed request: %s %s", r.Method, path))
	}
	return metrics.Other, api.Refuse(w, status.Errorf(status.NotFound,
		"nothing at %s; there are %s/M:predict, %s/models/M/infer, /classify, /preprocess, /predict, /infer, /livez, /readyz, /metrics", path, tfserving.Prefix, oip.Prefix))
}

func get(w http.ResponseWriter, r *http.Request) error {
	if r.Method == http.MethodHead {
		return nil
	}
	return api.Method(w, r, http.MethodGet)
}

// Readiness says whether the server answers inference, and if not, why.
func (s *Server) Readiness() (bool, string) {
	switch {
	case s.draining.Load():
		return false, "draining"
	case !s.ready.Load():
		return false, "loading models"
	}
	return true, "ready"
}

func (s *Server) health(w http.ResponseWriter, r *http.Request, good bool, why string) int {
	if err := get(w, r); err != nil {
		return api.Refuse(w, err)
	}
	code := http.StatusOK
	if !good {
		code = http.StatusServiceUnavailable
		w.Header().Set("Retry-After", "1")
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(why + "\n"))
	return code
}
