package simple

import (
	"encoding/json"
	"errors"
	"mime"
	"strconv"
	"strings"

	"sluicegate/go_infer/internal/api"
	"sluicegate/go_infer/internal/image"
	"sluicegate/go_infer/internal/jsontensor"
	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/tensor"
)

// Headers of a binary answer: the tensor's shape ("2,224,224,3") and element type ("float32", "uint8", "float16").
const (
	ShapeHeader = "Tensor-Shape"
	TypeHeader  = "Tensor-Dtype"
	binaryType  = "application/octet-stream"
)

// preprocess answers with the tensor that pictures become: the feature step alone. Which one, the model of ?model= declares, or the
// request itself: in its query, in "preprocess" of its JSON or form.
func (h *Handler) preprocess(x *api.Exchange) error {
	sent, err := read(x, h.Images.Limits.Pictures)
	if err != nil {
		return err
	}
	how, err := h.recipe(x, sent.declared)
	if err != nil {
		return err
	}
	if err := h.Images.Admit(len(sent.pictures), how); err != nil {
		return err
	}
	binary := wantsBinary(x.Request.Header.Get("Accept"))
	size := len(sent.pictures) * how.Size()
	features := make([]byte, size)
	if err := h.Images.Fill(x.Context, sent.pictures, how, features); err != nil {
		return err
	}
	dims := append([]int64{int64(len(sent.pictures))}, how.Dims()...)
	if binary {
		x.Header.Set("Content-Type", binaryType)
		x.Header.Set(ShapeHeader, strings.Trim(tensor.ShapeText(dims, true), "[]"))
		x.Header.Set(TypeHeader, how.DType)
		x.Answer = append(x.Answer, features...)
		return nil
	}
	text := append(x.Answer, `{"shape":`...)
	text = append(text, tensor.ShapeText(dims, true)...)
	text = append(text, `,"dtype":"`...)
	text = append(text, how.DType...)
	text = append(text, `","data":[`...)
	for i := range int(tensor.Elements(dims)) {
		if i > 0 {
			text = append(text, ',')
		}
		switch how.DType {
		case "uint8":
			text = strconv.AppendUint(text, uint64(features[i]), 10)
		default:
			text = jsontensor.AppendFloat(text, how.Float(features, i), 32)
		}
	}
	x.Answer = append(text, "]}\n"...)
	return nil
}

// recipe is the preprocessing that counts: exactly one of the model's, the query's and the body's.
func (h *Handler) recipe(x *api.Exchange, declared []byte) (*image.Preprocess, error) {
	query := x.Request.URL.Query()
	own, err := image.FromQuery(query, "model", "version", "label")
	if err == nil && declared != nil {
		if own != nil {
			return nil, status.Errorf(status.InvalidArgument, "preprocessing is declared in the query and in the body; declare it once")
		}
		own = &image.Preprocess{}
		err = json.Unmarshal(declared, own)
	}
	var wrong *image.DeclarationError
	switch {
	case errors.As(err, &wrong):
		return nil, status.Errorf(status.InvalidArgument, "%s", wrong)
	case err != nil:
		return nil, status.Errorf(status.InvalidArgument, "preprocess is no JSON object: %v", err)
	case own != nil && query.Has("model"):
		return nil, status.Errorf(status.InvalidArgument, "the request names a model and declares preprocessing of its own; send one of them")
	case own != nil:
		return own, nil
	}
	lease, err := h.choose(x)
	if err != nil {
		return nil, err
	}
	defer lease.Release()
	return preprocessing(lease.Model)
}

// wantsBinary: the first of the two types in Accept counts; JSON if it names neither.
func wantsBinary(accept string) bool {
	for one := range strings.SplitSeq(accept, ",") {
		switch kind, _, _ := mime.ParseMediaType(one); kind {
		case binaryType:
			return true
		case "application/json":
			return false
		}
	}
	return false
}
