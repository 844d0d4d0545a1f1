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
}

// Paths are what this package answers.
var Paths = map[string]operation{
	"/classify":   {metrics.Classify, (*Handler).classify},
	"/preprocess": {metrics.Preprocess, (*Handler).preprocess},
	"/predict":    {metrics.Infer, (*Handler).predict},
	"/infer":      {metrics.Infer, (*Handler).predict},
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
	return operation.endpoint, api.Serve(w, r, h.Limits, func(x *api.Exchange) error { return operation.run(h, x) }), true
}

// choose finds and holds the model that the query asks for.
func (h *Handler) choose(x *api.Exchange) (*repository.Lease, error) {
	name, wanted, r := "", repository.Wanted{}, x.Request
	if r.URL.RawQuery != "" {
		query := r.URL.Query()
		name = query.Get("model")
		if text := query.Get("version"); text != "" {
			number, err := strconv.ParseInt(text, 10, 64)
			if err != nil || number < 0 {
				return nil, status.Errorf(status.InvalidArgument, "version=%q is not a version; versions are whole numbers", text)
			}
			wanted = repository.Wanted{Version: number, Exact: true}
		}
	}
	if name == "" {
		names := h.Repository.Names()
		if len(names) != 1 {
			return nil, status.Errorf(status.InvalidArgument, "which model? add ?model=NAME; there are: %s", strings.Join(names, ", "))
		}
		name = names[0]
	}
	return h.Repository.Acquire(x.Context, name, wanted)
}

func (h *Handler) predict(x *api.Exchange) error {
	lease, err := h.choose(x)
	if err != nil {
		return err
	}
	defer lease.Release()
	if err := lease.Model.Overloaded(x.Context, x.Class); err != nil {
		return err
	}
	answer, err := newAnswer(lease.Model, "")
	if err != nil {
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
