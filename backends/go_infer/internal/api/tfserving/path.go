package tfserving

import (
	"strconv"
	"strings"

	"sluicegate/go_infer/internal/repository"
	"sluicegate/go_infer/internal/status"
)

// Prefix is where TF-Serving's REST API lives.
const Prefix = "/v1/models"

// target is what a path names: /v1/models/M[/versions/N|/labels/L][:verb|/metadata].
type target struct {
	model  string
	wanted repository.Wanted
	verb   string // predict, classify, regress; empty for a status or metadata request
	meta   bool
}

// malformed is TF-Serving's word for a path that names nothing.
func malformed(method, path string) error {
	return status.Errorf(status.InvalidArgument, "Malformed request: %s %s", method, path)
}

// parse reads a path; any other form is malformed.
func parse(method, path string) (target, error) {
	t := target{}
	rest, found := strings.CutPrefix(path, Prefix+"/")
	if !found {
		if strings.TrimSuffix(path, "/") == Prefix && method == "GET" {
			return t, status.Errorf(status.InvalidArgument, "Missing model name in request.")
		}
		return t, malformed(method, path)
	}
	rest, t.verb, found = strings.Cut(rest, ":")
	if found && t.verb != "predict" && t.verb != "classify" && t.verb != "regress" {
		return t, malformed(method, path)
	}
	if found == (method == "GET") || method != "GET" && method != "POST" {
		return t, malformed(method, path)
	}
	if !found {
		rest, t.meta = strings.CutSuffix(rest, "/metadata")
	}
	var by string
	t.model, by, found = strings.Cut(rest, "/")
	if t.model == "" {
		return t, malformed(method, path)
	}
	if !found {
		return t, nil
	}
	if label, labelled := strings.CutPrefix(by, "labels/"); labelled && label != "" && !strings.Contains(label, "/") {
		t.wanted.Label = label
		return t, nil
	}
	number, versioned := strings.CutPrefix(by, "versions/")
	if !versioned || number == "" || strings.Trim(number, "0123456789") != "" {
		return t, malformed(method, path)
	}
	version, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return t, status.Errorf(status.InvalidArgument, "Failed to convert version: %s to numeric.", number)
	}
	t.wanted = repository.Wanted{Version: version, Exact: true}
	return t, nil
}
