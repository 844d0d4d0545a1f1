package triton

import (
	"io"
	"strings"

	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/rawtensor"
	"sluicegate/go_infer/internal/session"
	"sluicegate/go_infer/internal/tensor"
)

// Input is the position of an input of that name and type, which the request does not have yet.
func Input(s *model.Servable, request *model.Request, name, datatype []byte) (at int, err error) {
	if at = find(s.Inputs, name); at < 0 {
		return at, Refuse("unexpected inference input '%s' for model '%s'", name, s.Model.Name)
	}
	if present(&request.In[at]) {
		return at, Refuse("input '%s' already exists in request", name)
	}
	if want := Datatypes[s.Inputs[at].Type]; string(datatype) != want {
		return at, Refuse("inference input '%s' data-type is '%s', but model '%s' expects '%s'", name, datatype, s.Model.Name, want)
	}
	return at, nil
}

// Shape refuses a shape that is not an input's, or of no tensor that can be.
func Shape(s *model.Servable, at int, dims []int64) error {
	info := &s.Inputs[at]
	for _, dim := range dims {
		if dim < 0 {
			return Refuse("shape %s of input '%s' has a negative dimension", tensor.ShapeText(dims, true), info.Alias)
		}
	}
	switch {
	case len(dims) > session.MaxRank:
		return Refuse("input '%s' has more than the %d dimensions that are served", info.Alias, session.MaxRank)
	case !info.Fits(dims):
		return Refuse("unexpected shape for input '%s' for model '%s'. Expected %s, got %s", info.Alias, s.Model.Name, info.Shape(), tensor.ShapeText(dims, true))
	case !tensor.Possible(dims):
		return Refuse("unexpected shape for input '%s' for model '%s'. The shape %s is not possible", info.Alias, s.Model.Name, tensor.ShapeText(dims, true))
	}
	return nil
}

// Raw fills an input of a good shape with size raw bytes from r, of which there are left.
func Raw(r io.Reader, size, left int, s *model.Servable, request *model.Request, at int, dims []int64) error {
	info := &s.Inputs[at]
	if want := tensor.Elements(dims) * int64(info.Type.Size()); info.Type != tensor.String && want != int64(size) {
		return Refuse("input byte size mismatch for input '%s' for model '%s'. Expected %d, got %d", info.Alias, s.Model.Name, want, size)
	}
	if size > left {
		return Refuse("unexpected size for input '%s', expecting %d additional bytes for model '%s'", info.Alias, size-left, s.Model.Name)
	}
	return rawtensor.Read(r, size, request, at, info.Alias, s.Model.Pool(), info.Type, dims...)
}

// Complete checks a request that has all that was sent: no input is missing, and if signatures are run in batches all have the same rows,
// which are counted.
func Complete(s *model.Servable, request *model.Request) error {
	for i := range request.In {
		if !present(&request.In[i]) {
			return missing(s, request)
		}
	}
	if s.Batchable() {
		rows := request.In[0].Dims[0]
		for i := range request.In {
			if request.In[i].Dims[0] != rows {
				return Refuse("input '%s' batch size does not match other inputs for '%s'", s.Inputs[i].Alias, s.Model.Name)
			}
		}
		if rows == 0 {
			return Refuse("inference request batch-size must be > 0 for '%s'", s.Model.Name)
		}
	}
	return request.CountRows(s.Signature)
}

func present(value *tensor.Value) bool { return value.Slab != nil || value.Strings != nil }

// missing names the inputs that were not given.
func missing(s *model.Servable, request *model.Request) error {
	var got, missing []string
	for i := range s.Inputs {
		name := "'" + s.Inputs[i].Alias + "'"
		if present(&request.In[i]) {
			got = append(got, name)
		} else {
			missing = append(missing, name)
		}
	}
	return Refuse("expected %d inputs but got %d inputs for model '%s'. Got inputs [%s], but missing required inputs [%s]. "+
		"Please provide all required inputs.", len(s.Inputs), len(got), s.Model.Name, strings.Join(got, ","), strings.Join(missing, ","))
}

// Output is the position of an output that is asked for; earlier says whether it has been before.
func Output(s *model.Servable, name []byte, earlier func(at int) bool) (at int, err error) {
	if at = find(s.Outputs, name); at < 0 {
		return at, Refuse("unexpected inference output '%s' for model '%s'", name, s.Model.Name)
	}
	if earlier(at) {
		return at, Refuse("output '%s' is requested twice", name)
	}
	return at, nil
}

// Unordered refuses the best classes of an output that has none.
func Unordered(s *model.Servable, output int) error {
	return Refuse("output '%s' is %s, which has no best classes", s.Outputs[output].Alias, Datatypes[s.Outputs[output].Type])
}

// find is the position of the tensor that clients call so, -1 if there is none.
func find(infos []model.TensorInfo, alias []byte) int {
	for i := range infos {
		if infos[i].Alias == string(alias) {
			return i
		}
	}
	return -1
}
