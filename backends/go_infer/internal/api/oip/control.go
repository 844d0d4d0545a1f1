package oip

import (
	"context"
	"slices"
	"strconv"

	"sluicegate/go_infer/internal/api"
	"sluicegate/go_infer/internal/jsontensor"
	"sluicegate/go_infer/internal/repository"
	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/triton"
)

// Control loads and unloads models by request.
type Control interface {
	// Load loads a model, or loads it anew; it returns when the model answers, or why it does not.
	Load(ctx context.Context, name string) error
	// Unload takes a model away; it returns when no new request reaches it.
	Unload(ctx context.Context, name string) error
}

type indexEntry struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	State   string `json:"state"`
	Reason  string `json:"reason"`
}

// states are Triton's names; a version that was announced and not loaded yet is not available either.
var states = map[repository.State]string{
	repository.Start: "UNAVAILABLE", repository.Loading: "LOADING", repository.Available: "READY",
	repository.Unloading: "UNLOADING", repository.End: "UNAVAILABLE",
}

// index lists every version of every model, or those that are ready.
func (h *Handler) index(x *api.Exchange, _ *target) error {
	ready := false
	if len(x.Body) > 0 {
		var at [1]jsontensor.Span
		if err := jsontensor.Object(x.Body, []string{"ready"}, at[:]); err != nil {
			return err
		}
		if at[0].Found() {
			var ok bool
			if ready, ok = jsontensor.Truth(x.Body, at[0]); !ok {
				return triton.Refuse("Unable to parse 'ready': it must be true or false")
			}
		}
	}
	entries := []indexEntry{}
	for _, name := range h.Repository.Names() {
		for _, version := range slices.Backward(h.Repository.Versions(name)) {
			if ready && version.State != repository.Available {
				continue
			}
			entry := indexEntry{name, strconv.FormatInt(version.Number, 10), states[version.State], ""}
			switch {
			case version.Err != nil:
				entry.Reason = version.Err.Error()
			case version.State == repository.End:
				entry.Reason = "unloaded"
			}
			entries = append(entries, entry)
		}
	}
	return print(x, entries)
}

func (h *Handler) load(x *api.Exchange, t *target) error {
	return h.control(x, t, "load", func(c Control) error { return c.Load(x.Context, t.model) })
}

func (h *Handler) unload(x *api.Exchange, t *target) error {
	return h.control(x, t, "unload", func(c Control) error { return c.Unload(x.Context, t.model) })
}

func (h *Handler) control(x *api.Exchange, t *target, verb string, do func(Control) error) error {
	if len(x.Body) > 0 {
		if err := checkControl(x.Body); err != nil {
			return err
		}
	}
	if h.Control == nil {
		return repository.Forbidden("failed to " + verb + " '" + t.model + "': explicit model load / unload")
	}
	err := do(h.Control)
	if err == nil {
		x.Answer = append(x.Answer, "{}\n"...)
		return nil
	}
	refusal := *status.From(err)
	if refusal.Code == status.NotFound {
		refusal.Message = "failed to " + verb + " '" + t.model + "', no version is available: " + refusal.Message
	} else {
		refusal.Message = "failed to " + verb + " '" + t.model + "': " + refusal.Message
	}
	return &refusal
}

// checkControl refuses a body that is not the extension's, and parameters that would change what is loaded.
func checkControl(body []byte) error {
	var at [1]jsontensor.Span
	if err := jsontensor.Object(body, []string{"parameters"}, at[:]); err != nil {
		return err
	}
	f := inference{body: body}
	return f.each(at[0], func(key []byte, _ jsontensor.Span) error {
		if text := string(key); text == "config" || len(text) > 5 && text[:5] == "file:" {
			return triton.Refuse("the load parameter '%s' is not supported: a model's configuration is this server's", text)
		}
		return nil
	})
}
