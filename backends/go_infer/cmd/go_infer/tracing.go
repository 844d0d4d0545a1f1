package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"sluicegate/go_infer/internal/grpcserver/rpc"
	"sluicegate/go_infer/internal/metrics"
	"sluicegate/go_infer/internal/trace"
	"sluicegate/go_infer/internal/trace/otlp"
)

// tracing are the flags that say who is told of traced requests.
type tracing struct {
	file, endpoint, headers string
	queue, batch            int
	timeout, every          time.Duration
}

func (t *tracing) register(f *flag.FlagSet) {
	f.StringVar(&t.file, "trace_file", "", "`file` to append a line of JSON to for each request whose traceparent says that it is sampled")
	f.StringVar(&t.endpoint, "otlp_endpoint", "", "`URL` of an OpenTelemetry collector for the same spans, as in http://127.0.0.1:4318 (default: what OTEL_EXPORTER_OTLP_* say)")
	f.StringVar(&t.headers, "otlp_headers", "", "`headers` for it, as in api-key=x,tenant=y, percent-encoded")
	f.IntVar(&t.queue, "otlp_queue", 2048, "most `spans` that wait to be sent; beyond, they are dropped and counted")
	f.IntVar(&t.batch, "otlp_batch", 512, "most `spans` in one request")
	f.DurationVar(&t.every, "otlp_interval", 5*time.Second, "`time` after which spans that do not fill a request are sent")
	f.DurationVar(&t.timeout, "otlp_timeout", 10*time.Second, "`time` that a request may take")
}

func (t *tracing) check() error {
	for _, bound := range []struct {
		name  string
		value int
	}{{"otlp_queue", t.queue}, {"otlp_batch", t.batch}} {
		if bound.value < 1 || bound.value > 1<<20 {
			return fmt.Errorf("--%s=%d is out of range; it must be 1..%d", bound.name, bound.value, 1<<20)
		}
	}
	for _, bound := range []struct {
		name  string
		value time.Duration
	}{{"otlp_interval", t.every}, {"otlp_timeout", t.timeout}} {
		if bound.value < time.Millisecond || bound.value > time.Hour {
			return fmt.Errorf("--%s=%s is out of range; it must be 1ms..1h", bound.name, bound.value)
		}
	}
	return nil
}

// sinks makes who is told; nil if nobody is. end gives them the time of ctx to write what waits.
func (t *tracing) sinks(given func(name string) bool, registry *metrics.Registry, log *slog.Logger) (sink trace.Sink, end func(ctx context.Context), err error) {
	var all trace.Sinks
	ends := []func(context.Context){}
	end = func(ctx context.Context) {
		for _, each := range ends {
			each(ctx)
		}
	}
	dropped := []func() int64{}
	if t.file != "" {
		file, err := os.OpenFile(t.file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
		if err != nil {
			return nil, nil, fmt.Errorf("--trace_file: %w", err)
		}
		w := trace.NewWriter(file)
		all, ends, dropped = append(all, w), append(ends, func(context.Context) { w.Close() }), append(dropped, w.Dropped)
	}
	o, asked, err := otlp.Environment(os.Getenv, t.endpoint, t.headers)
	if err != nil {
		return nil, nil, err
	}
	if asked {
		o.Log = log
		o.Resource["service.version"] = release
		choose(given("otlp_queue"), &o.Queue, t.queue)
		choose(given("otlp_batch"), &o.Batch, t.batch)
		choose(given("otlp_interval"), &o.Every, t.every)
		choose(given("otlp_timeout"), &o.Timeout, t.timeout)
		e := otlp.New(o)
		all, ends, dropped = append(all, e), append(ends, e.Close), append(dropped, e.Dropped)
		registry.Counter("go_infer_spans_sent_total", "Spans that the collector took.", func() float64 { return float64(e.Sent()) })
	}
	if len(all) == 0 {
		return nil, end, nil
	}
	registry.Counter("go_infer_spans_dropped_total", "Spans that were not written or not sent.", func() (sum float64) {
		for _, each := range dropped {
			sum += float64(each())
		}
		return sum
	})
	return all, end, nil
}

// choose takes a flag's value if it was given, or if the environment says nothing.
func choose[T int | time.Duration](given bool, into *T, value T) {
	if given || *into == 0 {
		*into = value
	}
}

// failed are the codes that are a server's failure and not the client's (OpenTelemetry's semantic conventions for gRPC servers).
var failed = map[codes.Code]bool{
	codes.Unknown: true, codes.DeadlineExceeded: true, codes.Unimplemented: true, codes.Internal: true, codes.Unavailable: true, codes.DataLoss: true,
}

// traceCalls tells a sink of gRPC calls.
func traceCalls(sink trace.Sink) func(ctx context.Context, method string, incoming metadata.MD) (context.Context, func(error)) {
	return func(ctx context.Context, method string, incoming metadata.MD) (context.Context, func(error)) {
		parents := incoming["traceparent"]
		if len(parents) != 1 {
			return ctx, func(error) {}
		}
		span := trace.Begin(parents[0], time.Now())
		if span == nil {
			return ctx, func(error) {}
		}
		return ctx, func(err error) {
			said := rpc.Status(err)
			service, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
			span.Name, span.Ended = service+"/"+name, time.Now().UnixNano()
			span.Failed = failed[said.Code()]
			span.Facts = map[string]any{"rpc.system": "grpc", "rpc.service": service, "rpc.method": name, "rpc.grpc.status_code": int(said.Code())}
			sink.Put(span)
		}
	}
}
