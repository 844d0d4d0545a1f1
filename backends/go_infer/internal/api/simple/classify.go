package simple

import (
	"sluicegate/go_infer/internal/api"
	"sluicegate/go_infer/internal/image"
	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/tensor"
)

// classify runs pictures through a model: all of a request are rows of one tensor.
func (h *Handler) classify(x *api.Exchange) error {
	lease, err := h.choose(x)
	if err != nil {
		return err
	}
	defer lease.Release()
	found := lease.Model
	answer, err := newAnswer(found, x.Request.URL.Query().Get("top"))
	if err != nil {
		return err
	}
	how, err := preprocessing(found)
	if err != nil {
		return err
	}
	if err := answer.servable.Overloaded(x.Context, x.Class); err != nil {
		return err // and not after decoding pictures
	}
	sent, err := read(x, h.Images.Limits.Pictures)
	if err != nil {
		return err
	}
	if sent.declared != nil {
		return status.Errorf(status.InvalidArgument, "the model declares how its pictures are preprocessed; a request's own is for /preprocess")
	}
	request, err := h.rows(x, sent.pictures, answer.servable, how)
	if err != nil {
		return err
	}
	defer request.Release()
	request.Class = x.Class
	if err := answer.servable.Run(x.Context, request); err != nil {
		return err
	}
	x.Answer, err = answer.append(x.Answer, request, len(sent.pictures), sent.list)
	return err
}

// preprocessing is what the model declares.
func preprocessing(m *model.Model) (*image.Preprocess, error) {
	if m.Declared == nil || m.Declared.Input.Preprocess == nil {
		return nil, status.Errorf(status.FailedPrecondition, "model %s version %d declares no preprocessing in %s, so it takes no pictures",
			m.Name, m.Version, model.DeclarationFile)
	}
	return m.Declared.Input.Preprocess, nil
}

// rows makes a request of one row for each picture. The model's declaration was held against its signature when it was loaded.
func (h *Handler) rows(x *api.Exchange, pictures [][]byte, servable *model.Servable, how *image.Preprocess) (*model.Request, error) {
	info := &servable.Inputs[0]
	if len(servable.Inputs) != 1 {
		return nil, status.Errorf(status.FailedPrecondition, "signature %q has %d inputs; pictures are for models with one", servable.Name, len(servable.Inputs))
	}
	if info.Dims[0] >= 0 && int64(len(pictures)) != info.Dims[0] {
		return nil, status.Errorf(status.InvalidArgument, "the model takes %d pictures in a request; this one has %d", info.Dims[0], len(pictures))
	}
	if err := h.Images.Admit(len(pictures), how); err != nil {
		return nil, err
	}
	dims := []int64{int64(len(pictures))}
	switch len(info.Dims) {
	case 2:
		dims = append(dims, tensor.Elements(how.Dims()))
	case 3:
		dims = append(dims, int64(how.Height), int64(how.Width))
	default:
		dims = append(dims, how.Dims()...)
	}
	request := model.NewRequest(1)
	request.Rows = 1
	if servable.Rowwise() {
		request.Rows = len(pictures)
	}
	value, err := request.SetInput(0, servable.Model.Pool(), info.Type, dims...)
	if err != nil {
		err = status.Errorf(status.ResourceExhausted, "%v", err)
	} else {
		err = h.Images.Fill(x.Context, pictures, how, value.Bytes())
	}
	if err != nil {
		request.Release()
		return nil, err
	}
	return request, nil
}
