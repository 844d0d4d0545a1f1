// Package simple is the API for people: pictures or numbers in, ranked labels out.
//
//	POST /classify          pictures: raw, as a multipart form, or {"image": {"b64": "..."}} or {"images": [{"b64": "..."}, ...]}
//	POST /preprocess        the same pictures; the answer is the tensor they become
//	POST /predict, /infer   {"instances": [...]} or {"inputs": ...}, as in TF-Serving
//
// Answers are {"model", "version", "predictions": [{"label", "score"}...]}: for /classify every label (or ?top=K) of the picture, best
// first, in a list of lists if pictures were sent as a list; further outputs that the model declares are in "outputs". For /predict and
// /infer predictions are the best label of each row. ?model=NAME and ?version=N choose what answers; the only model is the default.
package simple

import (
	"net/http"
	"strconv"
	"strings"

	"sluicegate/go_infer/internal/api"
	"sluicegate/go_infer/internal/image"
	"sluicegate/go_infer/internal/jsontensor"
	"sluicegate/go_infer/internal/metrics"
	"sluicegate/go_infer/internal/repository"
	"sluicegate/go_infer/internal/status"
)

// Handler serves the paths.
type Handler struct {
	Repository *repository.Repository
	Limits     api.Limits
	Images     *image.Stage
}

type operation struct {
	endpoint metrics.Endpoint
	run      func(*Handler, *api.Exchange) error
	gate     func(*Handler, *api.Exchange) error // nil: none
}

// Paths are what this package answers.
var Paths = map[string]operation{
	"/classify":   {metrics.Classify, (*Handler).classify, (*Handler).admit},
	"/preprocess": {metrics.Preprocess, (*Handler).preprocess, nil},
	"/predict":    {metrics.Infer, (*Handler).predict, (*Handler).admit},
	"/infer":      {metrics.Infer, (*Handler).predict, (*Handler).admit},
}

// Serve answers one request; false if the path is not of this package.
func (h *Handler) Serve(w http.ResponseWriter, r *http.Request) (metrics.Endpoint, int, bool) {
	operation, known := Paths[r.URL.Path]
	if !known {
		return metrics.Other, 0, false
	}
	if err := api.Method(w, r, http.MethodPost); err != nil {
		return operation.endpoint, api.Refuse(w, err), true
	}
	var gate api.Gate
	if operation.gate != nil {
		gate = func(x *api.Exchange) error { return operation.gate(h, x) }
	}
	return operation.endpoint, api.Serve(w, r, h.Limits, gate, func(x *api.Exchange) error { return operation.run(h, x) }), true
}

// admit refuses what an overloaded model could not answer in time.
func (h *Handler) admit(x *api.Exchange) error {
	name, wanted, err := h.asked(x)
	if err != nil {
		return err
	}
	if m := h.Repository.Glance(name, wanted); m != nil {
		return m.Overloaded(x.Context, x.Class)
	}
	return nil
}

// choose finds and holds the model that the query asks for.
func (h *Handler) choose(x *api.Exchange) (*repository.Lease, error) {
	name, wanted, err := h.asked(x)
	if err != nil {
		return nil, err
	}
	return h.Repository.Acquire(x.Context, name, wanted)
}

// asked is the model that the query asks for; without one, the only one.
func (h *Handler) asked(x *api.Exchange) (name string, wanted repository.Wanted, err error) {
	r := x.Request
	if r.URL.RawQuery != "" {
		query := r.URL.Query()
		name = query.Get("model")
		if text := query.Get("version"); text != "" {
			number, err := strconv.ParseInt(text, 10, 64)
			if err != nil || number < 0 {
				return "", wanted, status.Errorf(status.InvalidArgument, "version=%q is not a version; versions are whole numbers", text)
			}
			wanted = repository.Wanted{Version: number, Exact: true}
		}
	}
	if name == "" {
		names := h.Repository.Names()
		if len(names) != 1 {
			return "", wanted, status.Errorf(status.InvalidArgument, "which model? add ?model=NAME; there are: %s", strings.Join(names, ", "))
		}
		name = names[0]
	}
	return name, wanted, nil
}

func (h *Handler) predict(x *api.Exchange) error {
	lease, err := h.choose(x)
	if err != nil {
		return err
	}
	defer lease.Release()
	answer, err := newAnswer(lease.Model, "")
	if err != nil {
		return err
	}
	if err := answer.servable.Overloaded(x.Context, x.Class); err != nil {
		return err
	}
	document, err := jsontensor.Scan(x.Body)
	if err != nil {
		return err
	}
	request, err := document.Read(answer.servable.Signature, lease.Model.Pool())
	if err != nil {
		return err
	}
	defer request.Release()
	request.Class = x.Class
	if err := answer.servable.Run(x.Context, request); err != nil {
		return err
	}
	x.Answer, err = answer.best(x.Answer, request)
	return err
}
