package otlp

import (
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"sluicegate/go_infer/internal/trace"
)

const sampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func span(name string) *trace.Span {
	s := trace.Begin(sampled, time.Now())
	s.Name, s.Ended = name, time.Now().UnixNano()
	s.Facts = map[string]any{"http.request.method": "POST", "http.response.status_code": 200}
	return s
}

// collector answers with codes, the last one for ever, and keeps what it got with a 200.
type collector struct {
	*httptest.Server
	mu     sync.Mutex
	codes  []int
	asked  int
	spans  int
	answer []byte
	header http.Header
}

func newCollector(t *testing.T, codes ...int) *collector {
	c := &collector{codes: codes}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reader := io.Reader(r.Body)
		if r.Header.Get("Content-Encoding") == "gzip" {
			reader, _ = gzip.NewReader(r.Body)
		}
		body, _ := io.ReadAll(reader)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.asked++
		c.header = r.Header
		code := c.codes[min(c.asked, len(c.codes))-1]
		if code == http.StatusOK {
			c.spans += count(body)
		}
		w.WriteHeader(code)
		_, _ = w.Write(c.answer)
	}))
	t.Cleanup(c.Server.Close)
	return c
}

// count counts the spans of a request: ResourceSpans 1, ScopeSpans 2, Span 2.
func count(message []byte) (n int) {
	for _, resource := range fields(message, 1) {
		for _, scope := range fields(resource, 2) {
			n += len(fields(scope, 2))
		}
	}
	return n
}

func fields(message []byte, wanted protowire.Number) (all [][]byte) {
	for len(message) > 0 {
		field, kind, n := protowire.ConsumeTag(message)
		message = message[n:]
		n = protowire.ConsumeFieldValue(field, kind, message)
		if field == wanted {
			content, _ := protowire.ConsumeBytes(message)
			all = append(all, content)
		}
		message = message[n:]
	}
	return all
}

func TestSpansAreDeliveredTriedAgainOrDroppedAndAlwaysCounted(t *testing.T) {
	partial := message(nil, 1, func(text []byte) []byte { return stringField(varint(text, 1, 4), 2, "too old") })
	for name, c := range map[string]struct {
		codes         []int
		answer        []byte
		sent, dropped int64
		asked         int
	}{
		"taken":                    {[]int{200}, nil, 10, 0, 3},
		"busy, then taken":         {[]int{503, 429, 200}, nil, 10, 0, 5},
		"never taken":              {[]int{502}, nil, 0, 10, 9},
		"refused is not repeated":  {[]int{400, 200}, nil, 6, 4, 3},
		"moved is not followed":    {[]int{307}, nil, 0, 10, 3},
		"some of a batch refused":  {[]int{200}, partial, 0, 10, 3},
		"an answer that is no one": {[]int{200}, []byte("<html>"), 10, 0, 3},
	} {
		t.Run(name, func(t *testing.T) {
			to := newCollector(t, c.codes...)
			to.answer = c.answer
			e := New(Options{Endpoint: to.URL, Batch: 4, Every: time.Hour, Attempts: 3, Backoff: time.Millisecond, Gzip: true,
				Headers: map[string]string{"Authorization": "Bearer x"}})
			for range 10 {
				e.Put(span("x"))
			}
			e.Close(context.Background())
			if e.Sent() != c.sent || e.Dropped() != c.dropped || to.asked != c.asked {
				t.Errorf("sent %d, dropped %d, asked %d times; want %+v", e.Sent(), e.Dropped(), to.asked, c)
			}
			if to.header.Get("Authorization") != "Bearer x" || to.header.Get("Content-Type") != "application/x-protobuf" {
				t.Errorf("headers %v", to.header)
			}
			e.Put(span("after the end"))
			if e.Dropped() != c.dropped+1 {
				t.Error("a span after Close is not counted")
			}
		})
	}
}

func TestACollectorThatHangsDelaysNobodyAndIsLeftInTime(t *testing.T) {
	release, asked := make(chan struct{}), atomic.Int64{}
	hung := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked.Add(1)
		<-release
	}))
	defer hung.Close()
	defer close(release)
	e := New(Options{Endpoint: hung.URL, Queue: 8, Batch: 4, Every: time.Millisecond})
	const n = 10_000
	began := time.Now()
	for range n {
		e.Put(span("x"))
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s to hand over %d spans", took, n)
	}
	if e.Dropped() < n-8-2*4 {
		t.Errorf("only %d were dropped", e.Dropped())
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	e.Close(ctx)
	if e.Dropped() != n || e.Sent() != 0 {
		t.Errorf("dropped %d, sent %d of %d", e.Dropped(), e.Sent(), n)
	}
}

func TestWhatTheEnvironmentSays(t *testing.T) {
	for name, c := range map[string]struct {
		variables        map[string]string
		flag             string
		on               bool
		endpoint, refuse string
	}{
		"nothing":       {nil, "", false, "", ""},
		"a flag":        {nil, "http://c:4318", true, "http://c:4318/v1/traces", ""},
		"of everything": {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/base/"}, "", true, "http://c:4318/base/v1/traces", ""},
		"of traces":     {map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://c/x", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://d"}, "", true, "https://c/x", ""},
		"off":           {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "true"}, "", false, "", ""},
		"no traces":     {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "none"}, "", false, "", ""},
		"no URL":        {nil, "collector:4318", false, "", "--otlp_endpoint must be a URL"},
		"gRPC":          {map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http://c", false, "", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc: only http/protobuf"},
		"bad headers":   {map[string]string{"OTEL_EXPORTER_OTLP_HEADERS": "secret"}, "http://c", false, "", "OTEL_EXPORTER_OTLP_HEADERS: it must be KEY=VALUE"},
		"bad timeout":   {map[string]string{"OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "10s"}, "http://c", false, "", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT=10s is out of range"},
		"bad queue":     {map[string]string{"OTEL_BSP_MAX_QUEUE_SIZE": "0"}, "http://c", false, "", "OTEL_BSP_MAX_QUEUE_SIZE=0 is out of range"},
		"bad packing":   {map[string]string{"OTEL_EXPORTER_OTLP_COMPRESSION": "zstd"}, "http://c", false, "", "there are gzip and none"},
	} {
		o, on, err := Environment(func(key string) string { return c.variables[key] }, c.flag, "")
		switch {
		case c.refuse != "":
			if err == nil || !strings.Contains(err.Error(), c.refuse) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%s: %v", name, err)
			}
		case err != nil || on != c.on || on && o.Endpoint != c.endpoint:
			t.Errorf("%s: %+v, %v, %v", name, o, on, err)
		}
	}
	variables := map[string]string{"OTEL_EXPORTER_OTLP_HEADERS": "a=1, b=x%20y", "OTEL_RESOURCE_ATTRIBUTES": "host.name=h,service.name=s"}
	o, _, err := Environment(func(key string) string { return variables[key] }, "http://c", "")
	if err != nil || o.Headers["a"] != "1" || o.Headers["b"] != "x y" || o.Resource["service.name"] != "s" || o.Resource["host.name"] != "h" {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestAResponseOfAnyBytesIsRead(t *testing.T) {
	whole := message(nil, 1, func(text []byte) []byte { return stringField(varint(text, 1, 3), 2, "why") })
	if n, reason := rejected(whole); n != 3 || reason != "why" {
		t.Errorf("%d %q", n, reason)
	}
	for cut := range whole {
		_, _ = rejected(slices.Clone(whole[:cut]))
	}
}
