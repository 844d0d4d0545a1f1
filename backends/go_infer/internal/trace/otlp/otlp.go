// Package otlp sends finished spans to an OpenTelemetry collector, as OTLP over HTTP in protobuf.
//
// Contract: Put never waits. What does not fit into the queue is dropped and counted, as is a batch that could not be delivered: 429,
// 502, 503, 504 and failed connections are tried again with a growing pause (Retry-After goes before it), everything else is not.
// One batch is under way at a time. Failure is logged when it begins and when it ends, never once per batch.
// Source: opentelemetry.io/docs/specs/otlp (OTLP/HTTP); the defaults are those of OpenTelemetry's batch span processor.
package otlp

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"sluicegate/go_infer/internal/panics"
	"sluicegate/go_infer/internal/trace"
)

// Options say where to, and what it may cost. Endpoint is required; the zero value of everything else is a default.
type Options struct {
	Endpoint string            // the whole URL, as in http://collector:4318/v1/traces
	Headers  map[string]string // of every request
	Resource map[string]string // attributes of this server
	Gzip     bool
	TLS      *tls.Config
	Timeout  time.Duration // of one request; default 10 s
	Queue    int           // spans that wait; default 2048
	Batch    int           // spans in one request; default 512
	Every    time.Duration // after which an incomplete batch is sent; default 5 s
	Attempts int           // to deliver a batch; default 5
	Backoff  time.Duration // before the second attempt; doubled each time, up to 30 s; default 1 s
	Log      *slog.Logger  // default: none
}

const (
	maxBackoff = 30 * time.Second
	maxAnswer  = 64 << 10
)

// Exporter is a trace.Sink.
type Exporter struct {
	options Options
	client  *http.Client
	spans   chan *trace.Span
	sent    atomic.Int64
	dropped atomic.Int64
	failing string // the reason of the failure that goes on

	closing chan struct{}
	context context.Context // ends what is under way
	cancel  context.CancelFunc
	end     sync.Once
	done    chan struct{}
}

// New starts an exporter.
func New(o Options) *Exporter {
	o.Timeout = standard(o.Timeout, 10*time.Second)
	o.Queue, o.Batch, o.Attempts = standard(o.Queue, 2048), standard(o.Batch, 512), standard(o.Attempts, 5)
	o.Every, o.Backoff = standard(o.Every, 5*time.Second), standard(o.Backoff, time.Second)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = o.TLS
	e := &Exporter{options: o, spans: make(chan *trace.Span, o.Queue), closing: make(chan struct{}), done: make(chan struct{}),
		client: &http.Client{Transport: transport, Timeout: o.Timeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	e.context, e.cancel = context.WithCancel(context.Background())
	go e.work()
	return e
}

func standard[T int | time.Duration](given, usual T) T {
	if given == 0 {
		return usual
	}
	return given
}

// Put hands a finished span over; it does not wait.
func (e *Exporter) Put(span *trace.Span) {
	select {
	case <-e.closing:
		e.dropped.Add(1)
		return
	default:
	}
	select {
	case e.spans <- span:
	default:
		e.dropped.Add(1)
	}
}

// Sent is the number of spans that the collector took.
func (e *Exporter) Sent() int64 { return e.sent.Load() }

// Dropped is the number of spans that were not delivered: no room, given up, or refused by the collector.
func (e *Exporter) Dropped() int64 { return e.dropped.Load() }

// Close sends what waits, for as long as ctx allows; what is left then is dropped.
func (e *Exporter) Close(ctx context.Context) {
	e.end.Do(func() { close(e.closing) })
	select {
	case <-e.done:
	case <-ctx.Done():
		e.cancel()
		<-e.done
	}
	e.cancel()
	e.client.CloseIdleConnections()
}

// work gathers spans and sends them: a full batch at once, another after a while.
func (e *Exporter) work() {
	defer close(e.done)
	batch := make([]*trace.Span, 0, e.options.Batch)
	for {
		var closing bool
		batch, closing = e.gather(batch[:0])
		if len(batch) > 0 {
			if panics.Guard(e.options.Log, "the delivery of spans", func() error { e.deliver(batch); return nil }) != nil {
				e.dropped.Add(int64(len(batch)))
			}
		}
		if closing && len(e.spans) == 0 {
			return
		}
		clear(batch)
	}
}

// gather waits for a batch; it says whether the exporter is to end.
func (e *Exporter) gather(batch []*trace.Span) ([]*trace.Span, bool) {
	var late <-chan time.Time
	for len(batch) < e.options.Batch {
		select {
		case span := <-e.spans:
			if batch = append(batch, span); late == nil {
				timer := time.NewTimer(e.options.Every)
				defer timer.Stop()
				late = timer.C
			}
		case <-late:
			return batch, false
		case <-e.closing: // whatever there is, at once
			select {
			case span := <-e.spans:
				batch = append(batch, span)
			default:
				return batch, true
			}
		}
	}
	return batch, false
}

// deliver sends one batch, or drops it.
func (e *Exporter) deliver(batch []*trace.Span) {
	body := encode(batch, e.options.Resource)
	if e.options.Gzip {
		var packed bytes.Buffer
		w := gzip.NewWriter(&packed)
		_, _ = w.Write(body)
		_ = w.Close()
		body = packed.Bytes()
	}
	var failure error
	for attempt := range e.options.Attempts {
		var again bool
		var after time.Duration
		var refused int64
		if refused, again, after, failure = e.post(body); failure == nil {
			refused = min(refused, int64(len(batch)))
			e.sent.Add(int64(len(batch)) - refused)
			e.dropped.Add(refused)
			e.tell("")
			return
		}
		e.tell(failure.Error())
		if !again || attempt == e.options.Attempts-1 {
			break
		}
		pause := min(e.options.Backoff<<min(attempt, 20), maxBackoff)
		pause = max(after, pause/2+rand.N(pause/2+1)) // #nosec G404
		select {
		case <-time.After(pause):
			continue
		case <-e.context.Done():
		}
		break
	}
	e.dropped.Add(int64(len(batch)))
}

// tell logs that delivery begins to fail, or works again.
func (e *Exporter) tell(failure string) {
	switch {
	case failure != "" && e.failing == "":
		e.options.Log.Warn("spans cannot be delivered", "error", failure)
	case failure == "" && e.failing != "":
		e.options.Log.Info("spans are delivered again", "dropped", e.dropped.Load())
	}
	e.failing = failure
}

// post sends a request. It returns how many spans the collector refused, or the failure, whether it may pass, and when.
func (e *Exporter) post(body []byte) (refused int64, again bool, after time.Duration, err error) {
	request, err := http.NewRequestWithContext(e.context, http.MethodPost, e.options.Endpoint, bytes.NewReader(body))
	if err != nil {
		return 0, false, 0, errors.New("the endpoint is no URL")
	}
	for name, value := range e.options.Headers {
		request.Header.Set(name, value)
	}
	request.Header.Set("Content-Type", "application/x-protobuf")
	request.Header.Set("User-Agent", "go_infer")
	if e.options.Gzip {
		request.Header.Set("Content-Encoding", "gzip")
	}
	response, err := e.client.Do(request)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) { // its text has the URL, in which there may be a token
			err = wrapped.Err
		}
		return 0, e.context.Err() == nil, 0, err
	}
	defer response.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	switch response.StatusCode {
	case http.StatusOK, http.StatusAccepted, http.StatusNoContent:
		refused, reason := rejected(answer)
		if refused > 0 {
			e.options.Log.Warn("the collector refused spans", "spans", refused, "reason", reason)
		}
		return refused, false, 0, nil
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		if seconds, wrong := strconv.Atoi(response.Header.Get("Retry-After")); wrong == nil && seconds > 0 {
			after = min(time.Duration(seconds)*time.Second, maxBackoff)
		}
		again = true
	}
	return 0, again, after, fmt.Errorf("the collector says %s", response.Status)
}

var _ trace.Sink = (*Exporter)(nil)
