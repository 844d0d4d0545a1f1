package main

import (
	"flag"
	"fmt"
	"time"

	"sluicegate/go_infer/internal/http1"
)

// httpOptions are the flags that bound what one HTTP/1.1 connection may take.
type httpOptions struct{ limits http1.Limits }

func (o *httpOptions) register(f *flag.FlagSet) {
	o.limits = http1.Defaults()
	l := &o.limits
	f.IntVar(&l.MaxHeader, "http_max_header", l.MaxHeader, "most `bytes` of a request's line and fields; beyond, 431 (414 if the line alone has more)")
	f.IntVar(&l.MaxFields, "http_max_fields", l.MaxFields, "most `fields` of a request; beyond, 431")
	f.DurationVar(&l.HeaderTimeout, "http_header_timeout", l.HeaderTimeout, "`time` from a request's first byte to the end of its fields; then 408")
	f.DurationVar(&l.BodyTimeout, "http_body_timeout", l.BodyTimeout, "`time` from a request's first byte to the last of its body; then 408")
	f.DurationVar(&l.WriteTimeout, "http_write_timeout", l.WriteTimeout, "`time` from the end of a request's fields to the end of the answer; then the connection ends")
	f.DurationVar(&l.IdleTimeout, "http_idle_timeout", l.IdleTimeout, "`time` that a connection may be silent before a request's first byte")
}

func (o *httpOptions) check() error {
	for _, bound := range []struct {
		name             string
		value, low, high int
	}{
		{"http_max_header", o.limits.MaxHeader, 1 << 10, 1 << 20},
		{"http_max_fields", o.limits.MaxFields, 8, 1000},
	} {
		if bound.value < bound.low || bound.value > bound.high {
			return fmt.Errorf("--%s=%d is out of range; it must be %d..%d", bound.name, bound.value, bound.low, bound.high)
		}
	}
	for _, bound := range []struct {
		name  string
		value time.Duration
	}{
		{"http_header_timeout", o.limits.HeaderTimeout},
		{"http_body_timeout", o.limits.BodyTimeout},
		{"http_write_timeout", o.limits.WriteTimeout},
		{"http_idle_timeout", o.limits.IdleTimeout},
	} {
		if bound.value < 100*time.Millisecond || bound.value > 24*time.Hour {
			return fmt.Errorf("--%s=%s is out of range; it must be 100ms..24h", bound.name, bound.value)
		}
	}
	return nil
}
