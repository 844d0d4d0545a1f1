package trace

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"
)

const sampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func TestOnlyWhatTheCallerSampledIsTraced(t *testing.T) {
	for traceparent, traced := range map[string]bool{
		sampled: true,
		"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00":  false,
		"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03":  true,
		"00-00000000000000000000000000000000-00f067aa0ba902b7-01":  false,
		"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01":  false,
		"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01":  false,
		"00-4bf92f3577b34da6a3ce929d0e0e473x-00f067aa0ba902b7-01":  false,
		"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01":  false,
		"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-": false,
		"": false, "x": false,
	} {
		if got := Begin(traceparent, time.Now()); (got != nil) != traced {
			t.Errorf("%s: %+v", traceparent, got)
		}
	}
}

func TestASpanIsOneLineJoinedToItsParent(t *testing.T) {
	var out bytes.Buffer
	w := NewWriter(&out)
	span := Begin(sampled, time.Unix(1, 5))
	span.Name, span.Ended, span.Facts = "POST /predict", 2e9, map[string]any{"http.response.status_code": 200}
	w.Put(span)
	w.Close()
	var got Span
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || bytes.Count(out.Bytes(), []byte("\n")) != 1 {
		t.Fatalf("%s: %v", out.Bytes(), err)
	}
	if got.TraceID != "4bf92f3577b34da6a3ce929d0e0e4736" || got.ParentID != "00f067aa0ba902b7" || len(got.SpanID) != 16 || got.Began != 1e9+5 {
		t.Errorf("%+v", got)
	}
}

// stuck is a disk that does not answer.
type stuck struct{ release chan struct{} }

func (s stuck) Write(p []byte) (int, error) {
	<-s.release
	return len(p), nil
}

func TestASlowDiskDropsSpansAndDelaysNobody(t *testing.T) {
	disk := stuck{make(chan struct{})}
	w := NewWriter(disk)
	const more = 100
	for range Waiting + 64<<10/100 + more {
		w.Put(Begin(sampled, time.Now()))
	}
	if w.Dropped() == 0 {
		t.Error("nothing was dropped")
	}
	close(disk.release)
	w.Close()
}
