package grpcserver

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http/httptest"
	"slices"
	"strconv"
	"testing"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"sluicegate/go_infer/internal/api"
	rest "sluicegate/go_infer/internal/api/oip"
	pb "sluicegate/go_infer/internal/pb/inference"
)

// parameters are a request's as JSON has them.
func parameters(all map[string]*pb.InferParameter) map[string]any {
	out := map[string]any{}
	for name, p := range all {
		switch choice := p.ParameterChoice.(type) {
		case *pb.InferParameter_Int64Param:
			out[name] = choice.Int64Param
		case *pb.InferParameter_StringParam:
			out[name] = choice.StringParam
		case *pb.InferParameter_BoolParam:
			out[name] = choice.BoolParam
		case *pb.InferParameter_DoubleParam:
			out[name] = choice.DoubleParam
		}
	}
	return out
}

// overHTTP asks the same over HTTP, with binary tensors, and returns the code and the text of the refusal.
func overHTTP(t *testing.T, handler *rest.Handler, q *pb.ModelInferRequest) (code int, text string) {
	t.Helper()
	type part map[string]any
	var inputs, outputs []part
	for i, in := range q.Inputs {
		more := parameters(in.Parameters)
		more["binary_data_size"] = len(q.RawInputContents[i])
		inputs = append(inputs, part{"name": in.Name, "datatype": in.Datatype, "shape": in.Shape, "parameters": more})
	}
	for _, out := range q.Outputs {
		outputs = append(outputs, part{"name": out.Name, "parameters": parameters(out.Parameters)})
	}
	document := part{"parameters": parameters(q.Parameters)}
	if len(inputs) > 0 {
		document["inputs"] = inputs
	}
	if len(outputs) > 0 {
		document["outputs"] = outputs
	}
	head, err := json.Marshal(document)
	if err != nil {
		t.Fatal(err)
	}
	path := "/v2/models/" + q.ModelName
	if q.ModelVersion != "" {
		path += "/versions/" + q.ModelVersion
	}
	request := httptest.NewRequest("POST", path+"/infer", bytes.NewReader(slices.Concat(head, bytes.Join(q.RawInputContents, nil))))
	request.Header.Set("Inference-Header-Content-Length", strconv.Itoa(len(head)))
	recorder := httptest.NewRecorder()
	handler.Serve(recorder, request)
	var refusal struct{ Error string }
	_ = json.Unmarshal(recorder.Body.Bytes(), &refusal)
	return recorder.Code, refusal.Error
}

func TestTheProtocolRefusesOverHTTPAsOverGRPC(t *testing.T) {
	r := start(t, func() map[string]place {
		all := digits(t)
		maps.Copy(all, probes(t))
		return all
	}(), usual)
	handler := &rest.Handler{Repository: r.repo, Limits: api.Limits{MaxBody: 8 << 20}, Ready: func() (bool, string) { return true, "" }}
	whole := func(n int64) *pb.InferParameter {
		return &pb.InferParameter{ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: n}}
	}
	text := func(s string) *pb.InferParameter {
		return &pb.InferParameter{ParameterChoice: &pb.InferParameter_StringParam{StringParam: s}}
	}
	all := func(name string, p *pb.InferParameter) map[string]*pb.InferParameter {
		return map[string]*pb.InferParameter{name: p}
	}
	for name, change := range map[string]func(q *pb.ModelInferRequest){
		"no such model":          func(q *pb.ModelInferRequest) { q.ModelName = "cats" },
		"no such version":        func(q *pb.ModelInferRequest) { q.ModelVersion = "9" },
		"a version with noughts": func(q *pb.ModelInferRequest) { q.ModelVersion = "007" },
		"a version of words":     func(q *pb.ModelInferRequest) { q.ModelVersion = "new" },
		"a version below zero":   func(q *pb.ModelInferRequest) { q.ModelVersion = "-1" },
		"no such signature":      func(q *pb.ModelInferRequest) { q.Parameters = all("signature_name", text("cats")) },
		"a signature's number":   func(q *pb.ModelInferRequest) { q.Parameters = all("signature_name", whole(1)) },
		"no such input":          func(q *pb.ModelInferRequest) { q.Inputs[0].Name = "x" },
		"no input":               func(q *pb.ModelInferRequest) { q.Inputs, q.RawInputContents = nil, nil },
		"an input twice": func(q *pb.ModelInferRequest) {
			q.Inputs, q.RawInputContents = append(q.Inputs, q.Inputs[0]), append(q.RawInputContents, q.RawInputContents[0])
		},
		"another type":         func(q *pb.ModelInferRequest) { q.Inputs[0].Datatype = "FP64" },
		"no type":              func(q *pb.ModelInferRequest) { q.Inputs[0].Datatype = "float" },
		"another rank":         func(q *pb.ModelInferRequest) { q.Inputs[0].Shape = []int64{64} },
		"another width":        func(q *pb.ModelInferRequest) { q.Inputs[0].Shape[1] = 63 },
		"below zero":           func(q *pb.ModelInferRequest) { q.Inputs[0].Shape[0] = -1 },
		"far too many rows":    func(q *pb.ModelInferRequest) { q.Inputs[0].Shape[0] = 1 << 50 },
		"too many rows":        func(q *pb.ModelInferRequest) { q.Inputs[0].Shape[0] = 1 << 20 },
		"too many dimensions":  func(q *pb.ModelInferRequest) { q.Inputs[0].Shape = slices.Repeat([]int64{1}, 9) },
		"no rows":              func(q *pb.ModelInferRequest) { q.Inputs[0].Shape[0], q.RawInputContents[0] = 0, nil },
		"a byte too few":       func(q *pb.ModelInferRequest) { q.RawInputContents[0] = q.RawInputContents[0][1:] },
		"a byte too many":      func(q *pb.ModelInferRequest) { q.RawInputContents[0] = append(q.RawInputContents[0], 0) },
		"no such output":       func(q *pb.ModelInferRequest) { q.Outputs = []*tensorOut{{Name: "cat"}} },
		"an output twice":      func(q *pb.ModelInferRequest) { q.Outputs = []*tensorOut{{Name: "label"}, {Name: "label"}} },
		"a sequence":           func(q *pb.ModelInferRequest) { q.Parameters = all("sequence_id", whole(3)) },
		"a timeout below zero": func(q *pb.ModelInferRequest) { q.Parameters = all("timeout", whole(-3)) },
		"a timeout of words":   func(q *pb.ModelInferRequest) { q.Parameters = all("timeout", text("soon")) },
		"no priority":          func(q *pb.ModelInferRequest) { q.Parameters = all("priority", text("high")) },
		"one of Triton's own":  func(q *pb.ModelInferRequest) { q.Parameters = all("triton_x", whole(1)) },
		"shared memory":        func(q *pb.ModelInferRequest) { q.Inputs[0].Parameters = all("shared_memory_region", text("x")) },
		"an output in shared memory": func(q *pb.ModelInferRequest) {
			q.Outputs = []*tensorOut{{Name: "label", Parameters: all("shared_memory_region", text("x"))}}
		},
		"classes of words": func(q *pb.ModelInferRequest) {
			q.Outputs = []*tensorOut{{Name: "label", Parameters: all("classification", text("x"))}}
		},
		"classes of what has no order": func(q *pb.ModelInferRequest) {
			q.ModelName, q.Parameters = "types", all("signature_name", text("bool"))
			q.Inputs[0] = &tensorIn{Name: "x", Datatype: "BOOL", Shape: []int64{1, 1}}
			q.RawInputContents[0] = []byte{1}
			q.Outputs = []*tensorOut{{Name: "y", Parameters: all("classification", whole(1))}}
		},
		"strings cut short": func(q *pb.ModelInferRequest) {
			q.ModelName, q.Parameters = "types", all("signature_name", text("string"))
			q.Inputs[0] = &tensorIn{Name: "x", Datatype: "BYTES", Shape: []int64{1, 1}}
			q.RawInputContents[0] = []byte{9, 0, 0, 0, 'a'}
		},
		"too few strings": func(q *pb.ModelInferRequest) {
			q.ModelName, q.Parameters = "types", all("signature_name", text("string"))
			q.Inputs[0] = &tensorIn{Name: "x", Datatype: "BYTES", Shape: []int64{1, 2}}
			q.RawInputContents[0] = []byte{0, 0, 0, 0}
		},
		"too many strings": func(q *pb.ModelInferRequest) {
			q.ModelName, q.Parameters = "types", all("signature_name", text("string"))
			q.Inputs[0] = &tensorIn{Name: "x", Datatype: "BYTES", Shape: []int64{1, 1}}
			q.RawInputContents[0] = []byte{0, 0, 0, 0, 0, 0, 0, 0}
		},
	} {
		request := image("", make([]float32, 64))
		change(request)
		code, refusal := overHTTP(t, handler, request)
		said := grpcstatus.Convert(r.conn.Invoke(soon(t), service+"ModelInfer", proto.Clone(request), &pb.ModelInferResponse{}))
		if refusal == "" || refusal != said.Message() || code != map[codes.Code]int{codes.NotFound: 404, codes.InvalidArgument: 400}[said.Code()] {
			t.Errorf("%s:\n over HTTP %d %s\n over gRPC %v %s", name, code, refusal, said.Code(), said.Message())
		}
	}
}
