package server

import (
	"net/http"
	"strings"
	"sync"
	"time"

	"sluicegate/go_infer/internal/api/oip"
	"sluicegate/go_infer/internal/api/tfserving"
	"sluicegate/go_infer/internal/metrics"
)

// later counts a request that is answered in two steps, when it has been. It is pooled.
type later struct {
	s        *Server
	endpoint metrics.Endpoint
	begun    time.Time
	resume   func(answer func()) (after func())
	answer   func() int

	last  func() // its methods, bound once
	ended func(answer func() int) (after func())
}

var laters = sync.Pool{New: func() any { return &later{} }}

// Start begins to answer a prediction or an inference that came over a link; see link.Starter. What a request wants beside its answer
// ServeHTTP does.
func (s *Server) Start(w http.ResponseWriter, r *http.Request, resume func(answer func()) (after func())) bool {
	if s.LogEach || s.Spans != nil && len(r.Header["Traceparent"]) > 0 || len(r.Header["Endpoint-Load-Metrics-Format"]) > 0 {
		return false
	}
	endpoint, start := metrics.Predict, s.TFServing.Start
	switch path := r.URL.Path; {
	case strings.HasPrefix(path, tfserving.Prefix):
	case s.OIP != nil && strings.HasPrefix(path, oip.Prefix):
		endpoint, start = metrics.ModelInfer, s.OIP.Start
	default:
		return false
	}
	l := laters.Get().(*later)
	if l.last == nil {
		l.last, l.ended = l.count, l.end
	}
	l.s, l.endpoint, l.begun, l.resume = s, endpoint, s.Registry.Begin(), resume
	returned := false
	defer func() {
		if !returned { // it panicked
			l.ends(http.StatusInternalServerError)
		}
	}()
	began := start(w, r, l.ended)
	returned = true
	if !began {
		s.Registry.Undo()
		l.recycle()
	}
	return began
}

func (l *later) end(answer func() int) (after func()) {
	l.answer = answer
	return l.resume(l.last)
}

func (l *later) count() {
	code := http.StatusInternalServerError // if it panics
	defer func() { l.ends(code) }()
	code = l.answer()
}

// ends counts the request out.
func (l *later) ends(code int) {
	l.s.Registry.End(l.endpoint, code, l.begun)
	l.recycle()
}

func (l *later) recycle() {
	l.s, l.resume, l.answer = nil, nil, nil
	laters.Put(l)
}
