package tfserving

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"

	"sluicegate/go_infer/internal/api"
	"sluicegate/go_infer/internal/model"
)

// The JSON of GetModelMetadataResponse as protobuf prints it: 64-bit numbers are strings, defaults are printed.
type (
	metadataAnswer struct {
		ModelSpec specJSON `json:"model_spec"`
		Metadata  struct {
			SignatureDef struct {
				SignatureDef map[string]signatureJSON `json:"signature_def"`
			} `json:"signature_def"`
		} `json:"metadata"`
	}
	specJSON struct {
		Name      string `json:"name"`
		Signature string `json:"signature_name"`
		Version   string `json:"version"`
	}
	signatureJSON struct {
		Inputs  map[string]tensorJSON `json:"inputs"`
		Outputs map[string]tensorJSON `json:"outputs"`
		Method  string                `json:"method_name"`
	}
	tensorJSON struct {
		DType string    `json:"dtype"`
		Shape shapeJSON `json:"tensor_shape"`
		Name  string    `json:"name"`
	}
	shapeJSON struct {
		Dim         []dimJSON `json:"dim"`
		UnknownRank bool      `json:"unknown_rank"`
	}
	dimJSON struct {
		Size string `json:"size"`
		Name string `json:"name"`
	}
)

func (h *Handler) metadata(x *api.Exchange, target target) error {
	lease, err := h.Repository.Acquire(x.Context, target.model, target.wanted)
	if err != nil {
		return err
	}
	defer lease.Release()
	found := lease.Model
	answer := metadataAnswer{ModelSpec: specJSON{Name: found.Name, Version: strconv.FormatInt(found.Version, 10)}}
	all := map[string]signatureJSON{}
	for _, name := range slices.Sorted(maps.Keys(found.Signatures)) {
		signature := found.Signatures[name]
		all[name] = signatureJSON{tensors(signature.Inputs), tensors(signature.Outputs), signature.Method}
	}
	answer.Metadata.SignatureDef.SignatureDef = all
	text, err := json.MarshalIndent(answer, "", " ")
	x.Answer = append(append(x.Answer, text...), '\n')
	return err
}

func tensors(infos []model.TensorInfo) map[string]tensorJSON {
	all := map[string]tensorJSON{}
	for i := range infos {
		info := &infos[i]
		shape := shapeJSON{Dim: []dimJSON{}, UnknownRank: !info.Known}
		for _, dim := range info.Dims {
			shape.Dim = append(shape.Dim, dimJSON{Size: strconv.FormatInt(dim, 10)})
		}
		all[info.Alias] = tensorJSON{info.Type.Proto(), shape, info.Name}
	}
	return all
}
