package metrics

import (
	"maps"
	"slices"
	"strconv"

	"sluicegate/go_infer/internal/status"
)

// The names, in TF-Serving's Prometheus spelling.
const (
	servingRequests = ":tensorflow:serving:request_count"
	servingLatency  = ":tensorflow:serving:request_latency"
	servingLoad     = ":tensorflow:cc:saved_model:load_latency"
	servingAttempts = ":tensorflow:cc:saved_model:load_attempt_count"
	shadowRequests  = "go_infer_shadow_requests_total"
)

// appendServing prints what is counted under TF-Serving's names.
func (r *Registry) appendServing(t *page) {
	models := map[string]*Serving{}
	if known := r.serving.Load(); known != nil {
		models = *known
	}
	names := slices.Sorted(maps.Keys(models))
	t.head(servingRequests, "counter", "The total number of requests.")
	for _, name := range names {
		for code := range models[name].requests {
			if n := models[name].requests[code].Load(); n > 0 {
				t.sample(servingRequests, float64(n), "model_name", name, "status", status.Code(code).String())
			}
		}
	}
	t.head(servingLatency, "histogram", "Distribution of wall time (in microseconds) for a request.")
	for _, name := range names {
		for a := range apis {
			for e := range entrypoints {
				t.servingHistogram(&models[name].latency[a][e], "model_name", name, "API", apis[a], "entrypoint", entrypoints[e])
			}
		}
	}
	r.loading.Lock()
	defer r.loading.Unlock()
	versions := slices.Sorted(maps.Keys(r.loads))
	t.head(servingLoad, "counter", "Latency in microseconds of loading a version, all attempts together.")
	for _, version := range versions {
		t.sample(servingLoad, float64(r.loads[version].micros), "model_path", version)
	}
	t.head(servingAttempts, "counter", "The number of times a version was loaded.")
	for _, version := range versions {
		t.sample(servingAttempts, float64(r.loads[version].good), "model_path", version, "status", "success")
		t.sample(servingAttempts, float64(r.loads[version].bad), "model_path", version, "status", "fail")
	}
	t.head(shadowRequests, "counter", "Copies of requests for a shadow version.")
	for _, name := range names {
		for o, outcome := range shadowOutcomes {
			if n := models[name].shadows[o].Load(); n > 0 {
				t.sample(shadowRequests, float64(n), "model", name, "outcome", outcome)
			}
		}
	}
}

// servingHistogram prints a histogram that has counted something.
func (t *page) servingHistogram(h *servingHistogram, labels ...string) {
	total := int64(0)
	for i := range h.counts {
		total += h.counts[i].Load()
	}
	if total == 0 {
		return
	}
	n := int64(0)
	for i := range h.counts {
		n += h.counts[i].Load()
		bound := "+Inf"
		if i < len(servingBounds) {
			bound = strconv.FormatFloat(servingBounds[i], 'g', 6, 64)
		}
		t.sample(servingLatency+"_bucket", float64(n), append(labels[:len(labels):len(labels)], "le", bound)...)
	}
	t.sample(servingLatency+"_sum", float64(h.sum.Load())/1e3, labels...)
	t.sample(servingLatency+"_count", float64(n), labels...)
}
