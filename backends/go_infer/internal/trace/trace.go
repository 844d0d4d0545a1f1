// Package trace writes what this server did for a traced request, joined to the caller's span.
//
// Contract: a request is traced if its traceparent (W3C Trace Context) says that it is sampled; the caller decides, nobody else. A span
// is one line of JSON with the fields of the gateway's own spans (gateway/telemetry/tracing.py): trace_id, span_id, parent_id in
// hexadecimal, began and ended in nanoseconds since 1970, name, facts, failed. Writing never makes a request wait: what does not fit
// into the queue is dropped and counted.
package trace

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"io"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Waiting is how many finished spans wait to be written.
const Waiting = 4096

// Span is one request.
type Span struct {
	TraceID  string         `json:"trace_id"`
	SpanID   string         `json:"span_id"`
	ParentID string         `json:"parent_id"`
	Name     string         `json:"name"`
	Began    int64          `json:"began"`
	Ended    int64          `json:"ended"`
	Facts    map[string]any `json:"facts"`
	Failed   bool           `json:"failed"`
}

// Sink takes finished spans. Put does not wait: a span that there is no room for is dropped and counted.
type Sink interface{ Put(span *Span) }

// Sinks hand a span to each of several.
type Sinks []Sink

// Put hands the span over.
func (s Sinks) Put(span *Span) {
	for _, each := range s {
		each.Put(span)
	}
}

// Begin makes the span of a request with that traceparent; nil if it is not to be traced.
func Begin(traceparent string, now time.Time) *Span {
	// version "-" trace-id "-" parent-id "-" flags; only version 00 has exactly this length.
	if len(traceparent) != 55 || traceparent[:3] != "00-" || traceparent[35] != '-' || traceparent[52] != '-' {
		return nil
	}
	trace, parent, flags := traceparent[3:35], traceparent[36:52], traceparent[53:]
	if !known(trace) || !known(parent) {
		return nil
	}
	if bits, err := strconv.ParseUint(flags, 16, 8); err != nil || bits&1 == 0 {
		return nil
	}
	id := strconv.FormatUint(rand.Uint64()|1<<63, 16) // 16 digits, not zero
	return &Span{TraceID: trace, SpanID: id, ParentID: parent, Began: now.UnixNano()}
}

// known says whether an id is lower-case hexadecimal and not all zero.
func known(id string) bool {
	raw, err := hex.DecodeString(id)
	zero := true
	for _, b := range raw {
		zero = zero && b == 0
	}
	for i := range len(id) {
		if id[i] >= 'A' && id[i] <= 'F' {
			return false
		}
	}
	return err == nil && !zero
}

// Writer writes spans in a goroutine of its own.
type Writer struct {
	spans   chan *Span
	dropped atomic.Int64
	done    sync.WaitGroup
}

// NewWriter writes to out until Close.
func NewWriter(out io.Writer) *Writer {
	w := &Writer{spans: make(chan *Span, Waiting)}
	w.done.Add(1)
	go func() {
		defer w.done.Done()
		buffered := bufio.NewWriter(out)
		encoder := json.NewEncoder(buffered)
		for span := range w.spans {
			if encoder.Encode(span) != nil {
				w.dropped.Add(1)
			}
			if len(w.spans) == 0 && buffered.Flush() != nil {
				w.dropped.Add(1)
			}
		}
		_ = buffered.Flush()
	}()
	return w
}

// Put hands a finished span over; it does not wait.
func (w *Writer) Put(span *Span) {
	select {
	case w.spans <- span:
	default:
		w.dropped.Add(1)
	}
}

// Dropped is the number of spans that were not written.
func (w *Writer) Dropped() int64 { return w.dropped.Load() }

// Close writes what waits. Nobody may Put any more.
func (w *Writer) Close() {
	close(w.spans)
	w.done.Wait()
}
