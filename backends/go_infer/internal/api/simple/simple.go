// Package simple is the API for people: a picture or numbers in, ranked labels out.
//
//	POST /classify          an image: raw PNG or JPEG, multipart form, or {"image": {"b64": "..."}}
//	POST /predict, /infer   {"instances": [...]} or {"inputs": ...}, as in TF-Serving
//
// Answers are {"model", "version", "predictions": [{"label", "score"}...]}: for /classify every label of the one picture, best first;
// for /predict and /infer the best label of each row. ?model=NAME and ?version=N choose what answers; the only model is the default.
package simple

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"sluicegate/go_infer/internal/api"
	"sluicegate/go_infer/internal/image"
	"sluicegate/go_infer/internal/jsontensor"
	"sluicegate/go_infer/internal/metrics"
	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/repository"
	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/tensor"
)

// Handler serves the three paths.
type Handler struct {
	Repository *repository.Repository
	Limits     api.Limits
	MaxPixels  int
	// Decoders bounds how many pictures are decoded at the same time; a decoded picture is far larger than its file.
	Decoders chan struct{}
}

type operation struct {
	endpoint metrics.Endpoint
	run      func(*Handler, *api.Exchange) error
}

// Paths are what this package answers.
var Paths = map[string]operation{
	"/classify": {metrics.Classify, (*Handler).classify},
	"/predict":  {metrics.Infer, (*Handler).predict},
	"/infer":    {metrics.Infer, (*Handler).predict},
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

// labelled is the model's declared signature, and its scores' position; refused if it has no labels.
func labelled(m *model.Model) (*model.Servable, int, error) {
	declared := m.Declared
	if declared == nil || len(declared.Labels) == 0 || declared.Outputs.Scores == "" {
		return nil, 0, status.Errorf(status.FailedPrecondition,
			"model %s version %d declares no labels in %s; use /v1/models/%s:predict", m.Name, m.Version, model.DeclarationFile, m.Name)
	}
	signature, err := m.Signature(declared.Signature)
	if err != nil {
		return nil, 0, err
	}
	return signature, signature.Output(declared.Outputs.Scores), nil
}

func (h *Handler) predict(x *api.Exchange) error {
	lease, err := h.choose(x)
	if err != nil {
		return err
	}
	defer lease.Release()
	found := lease.Model
	signature, scores, err := labelled(found)
	if err != nil {
		return err
	}
	document, err := jsontensor.Scan(x.Body)
	if err != nil {
		return err
	}
	request, err := document.Read(signature.Signature, found.Pool())
	if err != nil {
		return err
	}
	defer request.Release()
	request.Class = x.Class
	if err := signature.Run(x.Context, request); err != nil {
		return err
	}
	return answer(x, found, &request.Out[scores], best)
}

func (h *Handler) classify(x *api.Exchange) error {
	lease, err := h.choose(x)
	if err != nil {
		return err
	}
	defer lease.Release()
	found := lease.Model
	signature, scores, err := labelled(found)
	if err != nil {
		return err
	}
	how := &found.Declared.Input.Preprocess
	input := signature.Input(found.Declared.Input.Tensor)
	if how.Width == 0 || len(signature.Inputs) != 1 || input < 0 {
		return status.Errorf(status.FailedPrecondition,
			"model %s version %d declares no preprocessing in %s, so it takes no pictures", found.Name, found.Version, model.DeclarationFile)
	}
	picture, err := picture(x)
	if err != nil {
		return err
	}
	request, err := h.tensor(x, picture, signature, how)
	if err != nil {
		return err
	}
	defer request.Release()
	request.Class = x.Class
	if err := signature.Run(x.Context, request); err != nil {
		return err
	}
	return answer(x, found, &request.Out[scores], ranking)
}

// tensor makes a request of one row of the picture.
func (h *Handler) tensor(x *api.Exchange, picture []byte, signature *model.Servable, how *model.Preprocess) (*model.Request, error) {
	select {
	case h.Decoders <- struct{}{}:
		defer func() { <-h.Decoders }()
	case <-x.Context.Done():
		if errors.Is(context.Cause(x.Context), context.DeadlineExceeded) {
			return nil, status.Errorf(status.DeadlineExceeded, "the request's deadline passed before its picture was decoded")
		}
		return nil, status.Errorf(status.Cancelled, "the client went away")
	}
	plane, err := image.Decode(picture, h.MaxPixels)
	if err != nil {
		return nil, err
	}
	info := &signature.Inputs[0]
	dims := append([]int64{1}, info.Dims[1:]...)
	if info.Type != tensor.Float32 || tensor.Elements(dims) != int64(how.Width*how.Height) {
		return nil, status.Errorf(status.FailedPrecondition, "input %q is %v %s, which a %dx%d picture does not fill",
			info.Alias, info.Type, info.Shape(), how.Width, how.Height)
	}
	request := model.NewRequest(1)
	request.Rows = 1
	value, err := request.SetInput(0, signature.Model.Pool(), info.Type, dims...)
	if err != nil {
		request.Release()
		return nil, status.Errorf(status.ResourceExhausted, "%v", err)
	}
	image.Write(plane, how, tensor.View[float32](value.Slab, how.Width*how.Height))
	return request, nil
}
