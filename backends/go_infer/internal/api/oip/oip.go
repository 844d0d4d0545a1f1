// Package oip speaks the Open Inference Protocol v2 over HTTP, with Triton's extensions that Extensions names.
//
// Contract: paths, members and texts are those of the protocol and of Triton, so that their clients need no change. Every refusal is
// {"error": "..."}: 4xx if the request is at fault, 404 for what does not exist, 503 for what is not ready yet or any more.
// Sources: kserve/open-inference-protocol specification/protocol/inference_rest.md and open_inference_rest.yaml;
// triton-inference-server/server docs/protocol/extension_*.md.
package oip

import (
	_ "embed"
	"net/http"

	"sluicegate/go_infer/internal/api"
	"sluicegate/go_infer/internal/metrics"
	"sluicegate/go_infer/internal/repository"
)

// Prefix is where the protocol lives.
const Prefix = "/v2"

// Extensions are what this server has beyond the protocol's core, as its metadata tells.
var Extensions = []string{
	"binary_tensor_data", "classification", "model_configuration", "model_repository", "parameters", "schedule_policy", "statistics",
}

// Document is the OpenAPI description of everything below Prefix.
//
//go:embed openapi.json
var Document []byte

// Handler serves everything below Prefix.
type Handler struct {
	Repository *repository.Repository
	Limits     api.Limits
	Release    string                // of the server, for its metadata
	Ready      func() (bool, string) // whether the server is, and if not, why
	Control    Control               // nil: models cannot be loaded and unloaded by request
}

// operation answers what a target asks for.
type operation struct {
	endpoint metrics.Endpoint
	method   string
	run      func(h *Handler, x *api.Exchange, t *target) error
	gate     func(h *Handler, x *api.Exchange, t *target) error // nil: none
}

// Serve answers one request; it returns what it was and the HTTP code.
func (h *Handler) Serve(w http.ResponseWriter, r *http.Request) (metrics.Endpoint, int) {
	t, err := parse(r.URL.Path)
	if err != nil {
		return metrics.Other, api.Refuse(w, err)
	}
	endpoint := t.operation.endpoint
	if r.Method != t.operation.method && !(r.Method == http.MethodHead && t.operation.method == http.MethodGet) {
		return endpoint, api.Refuse(w, api.Method(w, r, t.operation.method))
	}
	if t.head, err = headOf(r); err != nil {
		return endpoint, api.Refuse(w, err)
	}
	var gate api.Gate
	if t.operation.gate != nil {
		gate = func(x *api.Exchange) error { return t.operation.gate(h, x, &t) }
	}
	return endpoint, api.ServeParts(w, r, h.Limits, t.head, gate, func(x *api.Exchange) error { return t.operation.run(h, x, &t) })
}

// headOf is how many bytes of the body are JSON, as the request says; -1: it does not.
func headOf(r *http.Request) (int, error) {
	value := r.Header[headLength]
	if len(value) == 0 {
		return -1, nil
	}
	return api.ParseLength(headLength, value[0])
}
