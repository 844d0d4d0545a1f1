// Package tfserving speaks TensorFlow Serving's REST API: predict, classify, regress, model status and metadata.
//
// Contract: shapes of answers, status codes and texts of refusals are TF-Serving's, so its clients need no change. Where a refusal
// can say more (an offset, the expected shape), that follows TF-Serving's text.
package tfserving

import (
	"net/http"
	"strconv"
	"time"

	"sluicegate/go_infer/internal/api"
	"sluicegate/go_infer/internal/jsontensor"
	"sluicegate/go_infer/internal/metrics"
	"sluicegate/go_infer/internal/repository"
	"sluicegate/go_infer/internal/status"
)

// Handler serves everything below Prefix.
type Handler struct {
	Repository *repository.Repository
	Limits     api.Limits
	Registry   *metrics.Registry // counts under TF-Serving's names; nil: nobody does
}

// Serve answers one request; it returns what it was and the HTTP code.
func (h *Handler) Serve(w http.ResponseWriter, r *http.Request) (metrics.Endpoint, int) {
	target, err := parse(r.Method, r.URL.Path)
	h.settle(&target)
	switch {
	case err != nil:
		return metrics.Other, api.Refuse(w, err)
	case target.verb == "predict":
		return metrics.Predict, api.Serve(w, r, h.Limits, h.gate(&target, metrics.PredictAPI), func(x *api.Exchange) error { return h.predict(x, target) })
	case target.verb == "classify":
		return metrics.Classify, api.Serve(w, r, h.Limits, h.gate(&target, metrics.ClassifyAPI), func(x *api.Exchange) error { return h.classify(x, target) })
	case target.verb == "regress":
		return metrics.Regress, api.Serve(w, r, h.Limits, h.gate(&target, metrics.RegressAPI), func(x *api.Exchange) error { return h.regress(x, target) })
	case target.meta:
		return metrics.Metadata, api.Serve(w, r, h.Limits, nil, func(x *api.Exchange) error { return h.metadata(x, target) })
	}
	return metrics.Status, api.Serve(w, r, h.Limits, nil, func(x *api.Exchange) error { return h.status(x, target) })
}

// gate refuses what an overloaded model could not answer in time.
func (h *Handler) gate(target *target, method metrics.API) api.Gate {
	return func(x *api.Exchange) error {
		m := h.Repository.Glance(target.model, target.wanted)
		if m == nil {
			return nil
		}
		err := m.Overloaded(x.Context, x.Class)
		if err != nil {
			h.answered(method, m.Name, time.Now(), err)
		}
		return err
	}
}

// answered counts a request under TF-Serving's names.
func (h *Handler) answered(method metrics.API, name string, begun time.Time, err error) {
	if h.Registry != nil {
		h.Registry.Serving(name).Answered(method, metrics.REST, err, time.Since(begun))
	}
}

func (h *Handler) status(x *api.Exchange, target target) error {
	versions := h.Repository.Versions(target.model)
	if label := target.wanted.Label; label != "" {
		lease, err := h.Repository.Acquire(x.Context, target.model, target.wanted)
		if err != nil {
			return err
		}
		target.wanted = repository.Wanted{Version: lease.Model.Version, Exact: true}
		lease.Release()
	}
	if len(versions) == 0 {
		return status.Errorf(status.NotFound, "Could not find any versions of model %s", target.model)
	}
	text := append(x.Answer, "{\n \"model_version_status\": ["...)
	shown := 0
	for i := range versions {
		version := &versions[i]
		if target.wanted.Exact && version.Number != target.wanted.Version {
			continue
		}
		code, message := status.OK, ""
		if version.Err != nil {
			refusal := status.From(version.Err)
			code, message = refusal.Code, version.Err.Error()
		}
		if shown++; shown > 1 {
			text = append(text, ',')
		}
		text = append(text, "\n  {\n   \"version\": \""...)
		text = strconv.AppendInt(text, version.Number, 10)
		text = append(text, "\",\n   \"state\": \""...)
		text = append(text, version.State.String()...)
		text = append(text, "\",\n   \"status\": {\n    \"error_code\": \""...)
		text = append(text, code.String()...)
		text = append(text, "\",\n    \"error_message\": "...)
		text = jsontensor.AppendString(text, message)
		text = append(text, "\n   }\n  }"...)
	}
	if shown == 0 {
		return status.Errorf(status.NotFound, "Could not find version %d of model %s", target.wanted.Version, target.model)
	}
	x.Answer = append(text, "\n ]\n}\n"...)
	return nil
}
