package oip

import (
	"net/http"
	"strings"

	"sluicegate/go_infer/internal/metrics"
	"sluicegate/go_infer/internal/repository"
	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/triton"
)

// target is what a path names.
type target struct {
	model     string
	wanted    repository.Wanted
	head      int // bytes of the body that are JSON, as the request says; -1: it does not
	operation *operation
}

// The operations, by where they are in a path. A model's may follow /versions/V.
var (
	ofServer = map[string]*operation{
		"":                  {metrics.Metadata, http.MethodGet, (*Handler).serverMetadata, nil},
		"/health/live":      {metrics.Health, http.MethodGet, (*Handler).live, nil},
		"/health/ready":     {metrics.Health, http.MethodGet, (*Handler).ready, nil},
		"/openapi.json":     {metrics.Metadata, http.MethodGet, (*Handler).document, nil},
		"/models/stats":     {metrics.Status, http.MethodGet, (*Handler).statistics, nil},
		"/repository/index": {metrics.Control, http.MethodPost, (*Handler).index, nil},
	}
	ofModel = map[string]*operation{
		"":       {metrics.Metadata, http.MethodGet, (*Handler).modelMetadata, nil},
		"ready":  {metrics.Status, http.MethodGet, (*Handler).modelReady, nil},
		"config": {metrics.Metadata, http.MethodGet, (*Handler).config, nil},
		"stats":  {metrics.Status, http.MethodGet, (*Handler).statistics, nil},
		"infer":  {metrics.ModelInfer, http.MethodPost, (*Handler).infer, (*Handler).admit},
	}
	ofRepository = map[string]*operation{
		"load":   {metrics.Control, http.MethodPost, (*Handler).load, nil},
		"unload": {metrics.Control, http.MethodPost, (*Handler).unload, nil},
	}
)

// parse reads a path below Prefix.
func parse(path string) (target, error) {
	t := target{}
	rest := strings.TrimPrefix(path, Prefix)
	if t.operation = ofServer[strings.TrimSuffix(rest, "/")]; t.operation != nil {
		return t, nil
	}
	if name, found := strings.CutPrefix(rest, "/repository/models/"); found {
		var verb string
		t.model, verb, _ = strings.Cut(name, "/")
		if t.operation = ofRepository[verb]; t.operation != nil && t.model != "" {
			return t, nil
		}
		return t, nowhere(path)
	}
	name, found := strings.CutPrefix(rest, "/models/")
	if !found {
		return t, nowhere(path)
	}
	var verb string
	t.model, verb, _ = strings.Cut(name, "/")
	if version, versioned := strings.CutPrefix(verb, "versions/"); versioned {
		version, verb, _ = strings.Cut(version, "/")
		var err error
		if t.wanted, err = triton.Version(version); err != nil {
			return t, err
		}
	}
	if t.operation = ofModel[verb]; t.operation == nil || t.model == "" {
		return t, nowhere(path)
	}
	return t, nil
}

func nowhere(path string) error {
	return status.Errorf(status.NotFound, "nothing at %s; %s/openapi.json says what there is below %s", path, Prefix, Prefix)
}
