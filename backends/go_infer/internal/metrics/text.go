package metrics

import (
	"strconv"

	"sluicegate/go_infer/internal/batch"
)

// Append prints every counter in Prometheus' text exposition format, version 0.0.4.
func (r *Registry) Append(text []byte) []byte {
	t := page(text)
	r.retiring.RLock()
	defer r.retiring.RUnlock()
	t.head("go_infer_requests_total", "counter", "Requests answered, by endpoint and HTTP code.")
	for e := range r.requests {
		for c := range r.requests[e] {
			if n := r.requests[e][c].Load(); n > 0 {
				code := strconv.Itoa(codes[c])
				if codes[c] == 0 {
					code = "other"
				}
				t.sample("go_infer_requests_total", float64(n), "endpoint", endpointNames[e], "code", code)
			}
		}
	}
	t.head("go_infer_request_duration_seconds", "histogram", "Time from the request's header to its answer.")
	for e := range r.latency {
		if r.latency[e].total() > 0 {
			t.histogram("go_infer_request_duration_seconds", &r.latency[e], "endpoint", endpointNames[e])
		}
	}
	t.head("go_infer_requests_in_flight", "gauge", "Requests being answered now.")
	t.sample("go_infer_requests_in_flight", float64(r.inFlight.Load()))

	models := *r.models.Load()
	t.head("go_infer_batch_rows", "histogram", "Rows in one Run, before padding.")
	for _, m := range models {
		t.histogram("go_infer_batch_rows", &m.rows, "model", m.name, "version", m.version)
	}
	t.head("go_infer_run_duration_seconds", "histogram", "Time of one Run, with gathering and scattering rows.")
	for _, m := range models {
		t.histogram("go_infer_run_duration_seconds", &m.run, "model", m.name, "version", m.version)
	}
	t.head("go_infer_queue_rows", "gauge", "Rows waiting for a Run.")
	for _, m := range models {
		if waiting := m.waiting.Load(); waiting != nil {
			t.sample("go_infer_queue_rows", float64((*waiting)()), "model", m.name, "version", m.version)
		}
	}
	t.head("go_infer_dropped_total", "counter", "Requests (parts, if split) that cost no Run, because they had expired or their client had left.")
	for _, m := range models {
		t.sample("go_infer_dropped_total", float64(m.expired.Load()), "model", m.name, "version", m.version, "reason", "expired")
		t.sample("go_infer_dropped_total", float64(m.gone.Load()), "model", m.name, "version", m.version, "reason", "gone")
	}
	r.appendServing(&t)
	t.outcomes(models)
	for _, g := range r.gauges {
		t.head(g.name, g.kind, g.help)
		t.sample(g.name, g.read())
	}
	return t
}

// outcomes prints what became of the requests to models. Received is printed too, though it is the sum of the others and of what is
// under way: that they agree is worth an alert.
func (t *page) outcomes(models []*Model) {
	const received, ended, refused, wasted = "go_infer_batch_received_total", "go_infer_batch_ended_total",
		"go_infer_batch_refused_total", "go_infer_batch_wasted_rows_total"
	tallies := make([]batch.Tally, len(models))
	for i, m := range models {
		tallies[i] = m.outcome()
	}
	t.head(received, "counter", "Requests that came to a model's queue.")
	for i, m := range models {
		t.sample(received, float64(tallies[i].Received), "model", m.name, "version", m.version)
	}
	t.head(ended, "counter", "Requests by what became of them; each is one of these.")
	for i, m := range models {
		c := &tallies[i]
		turned := c.Ended() - c.Answered - c.Failed - c.Expired - c.Cancelled
		for _, each := range []struct {
			outcome string
			n       int64
		}{{"answered", c.Answered}, {"failed", c.Failed}, {"refused", turned}, {"expired", c.Expired}, {"cancelled", c.Cancelled}} {
			t.sample(ended, float64(each.n), "model", m.name, "version", m.version, "outcome", each.outcome)
		}
	}
	t.head(refused, "counter", "Requests that were refused, by why.")
	for i, m := range models {
		for _, reason := range batch.Reasons() {
			t.sample(refused, float64(tallies[i].Refused[reason]), "model", m.name, "version", m.version, "reason", reason.String())
		}
	}
	t.head(wasted, "counter", "Rows that were run and nobody waited for when the Run had ended.")
	for i, m := range models {
		t.sample(wasted, float64(tallies[i].Wasted), "model", m.name, "version", m.version)
	}
}

type page []byte

func (t *page) head(name, kind, help string) {
	*t = append(*t, "# HELP "+name+" "+help+"\n# TYPE "+name+" "+kind+"\n"...)
}

func (t *page) sample(name string, value float64, labels ...string) {
	*t = append(*t, name...)
	for i := 0; i < len(labels); i += 2 {
		*t = append(*t, "{,"[min(i, 1)])
		*t = append(*t, labels[i]...)
		*t = append(*t, '=')
		*t = strconv.AppendQuote(*t, labels[i+1])
	}
	if len(labels) > 0 {
		*t = append(*t, '}')
	}
	*t = append(*t, ' ')
	*t = strconv.AppendFloat(*t, value, 'g', -1, 64)
	*t = append(*t, '\n')
}

func (h *histogram) total() (n int64) {
	for i := range h.counts {
		n += h.counts[i].Load()
	}
	return n
}

func (t *page) histogram(name string, h *histogram, labels ...string) {
	n := int64(0)
	for i := range len(h.bounds) + 1 {
		n += h.counts[i].Load()
		bound := "+Inf"
		if i < len(h.bounds) {
			bound = strconv.FormatFloat(h.bounds[i], 'g', -1, 64)
		}
		t.sample(name+"_bucket", float64(n), append(labels[:len(labels):len(labels)], "le", bound)...)
	}
	t.sample(name+"_sum", float64(h.sum.Load())*h.unit, labels...)
	t.sample(name+"_count", float64(n), labels...)
}
