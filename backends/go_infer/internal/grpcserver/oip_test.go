package grpcserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"sluicegate/go_infer/internal/batch"
	pb "sluicegate/go_infer/internal/pb/inference"
	"sluicegate/go_infer/internal/pb/serving"
	"sluicegate/go_infer/internal/testmodels"
)

const service = "/inference.GRPCInferenceService/"

type (
	tensorIn  = pb.ModelInferRequest_InferInputTensor
	tensorOut = pb.ModelInferRequest_InferRequestedOutputTensor
)

// image asks for digits, as raw bytes.
func image(id string, rows ...[]float32) *pb.ModelInferRequest {
	return &pb.ModelInferRequest{ModelName: "digits", Id: id,
		Inputs:           []*tensorIn{{Name: "image", Datatype: "FP32", Shape: []int64{int64(len(rows)), 64}}},
		RawInputContents: [][]byte{raw(slices.Concat(rows...)).TensorContent}}
}

func TestModelInferNamesTheDigits(t *testing.T) {
	r := start(t, digits(t), usual)
	heldout := testmodels.Digits(t)
	typed := image("t", heldout.Instances[:40]...)
	typed.Inputs[0].Contents = &pb.InferTensorContents{Fp32Contents: slices.Concat(heldout.Instances[:40]...)}
	typed.RawInputContents = nil
	for _, request := range []*pb.ModelInferRequest{image("r", heldout.Instances[:40]...), typed} {
		answer := ask[pb.ModelInferResponse](t, r, service+"ModelInfer", request)
		if answer.ModelName != "digits" || answer.ModelVersion != "2" || answer.Id != request.Id || len(answer.Outputs) != 2 || len(answer.RawOutputContents) != 2 {
			t.Fatalf("answered %v", answer)
		}
		label, right := answer.RawOutputContents[0], 0
		if out := answer.Outputs[0]; out.Name != "label" || out.Datatype != "INT64" || fmt.Sprint(out.Shape) != "[40]" || len(label) != 320 {
			t.Fatalf("the first output is %v with %d bytes", out, len(label))
		}
		for i, want := range heldout.Labels[:40] {
			if int64(label[8*i]) == want {
				right++
			}
		}
		if right < 38 {
			t.Errorf("%d of 40 are right", right)
		}
	}
}

// contents are the same values as typed() has, as this protocol's typed contents; half types have none.
func contents() map[string]*pb.InferTensorContents {
	all := map[string]*pb.InferTensorContents{}
	for name, both := range typed() {
		p := both[0]
		c := &pb.InferTensorContents{Fp32Contents: p.FloatVal, Fp64Contents: p.DoubleVal, Int64Contents: p.Int64Val, BoolContents: p.BoolVal,
			UintContents: p.Uint32Val, Uint64Contents: p.Uint64Val, BytesContents: p.StringVal}
		switch name {
		case "uint8", "uint16":
			for _, v := range p.IntVal {
				c.UintContents = append(c.UintContents, uint32(v))
			}
		case "float16", "bfloat16":
			continue
		default:
			c.IntContents = p.IntVal
		}
		all[name] = c
	}
	return all
}

var protocolNames = map[string]string{"float32": "FP32", "float64": "FP64", "float16": "FP16", "bfloat16": "BF16", "bool": "BOOL", "string": "BYTES",
	"int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64"}

func TestEveryDatatypeComesBackAsItWas(t *testing.T) {
	r := start(t, probes(t), usual)
	asTyped := contents()
	for name, both := range typed() {
		bytes := both[1].TensorContent
		if name == "string" {
			bytes = nil
			for _, text := range both[0].StringVal {
				bytes = append(append(bytes, byte(len(text)), byte(len(text)>>8), 0, 0), text...)
			}
		}
		request := func() *pb.ModelInferRequest {
			return &pb.ModelInferRequest{ModelName: "types", ModelVersion: "1",
				Parameters: map[string]*pb.InferParameter{"signature_name": {ParameterChoice: &pb.InferParameter_StringParam{StringParam: name}}},
				Inputs:     []*tensorIn{{Name: "x", Datatype: protocolNames[name], Shape: []int64{2, 2}}}}
		}
		sent := request()
		sent.RawInputContents = [][]byte{bytes}
		all := []*pb.ModelInferRequest{sent}
		if c := asTyped[name]; c != nil {
			sent := request()
			sent.Inputs[0].Contents = c
			all = append(all, sent)
		}
		for form, sent := range all {
			answer := ask[pb.ModelInferResponse](t, r, service+"ModelInfer", sent)
			if out := answer.Outputs[0]; out.Datatype != protocolNames[name] || fmt.Sprint(out.Shape) != "[2 2]" || !slices.Equal(answer.RawOutputContents[0], bytes) {
				t.Errorf("%s, sent in form %d, came back as %v %x, not %x", name, form, out, answer.RawOutputContents[0], bytes)
			}
		}
	}
}

func TestModelInferRefusesAsTritonDoes(t *testing.T) {
	r := start(t, digits(t), usual)
	row := make([]float32, 64)
	change := func(do func(*pb.ModelInferRequest)) *pb.ModelInferRequest {
		request := image("", row)
		do(request)
		return request
	}
	parameter := func(name string, p *pb.InferParameter) func(*pb.ModelInferRequest) {
		return func(q *pb.ModelInferRequest) { q.Parameters = map[string]*pb.InferParameter{name: p} }
	}
	for _, c := range []struct {
		request *pb.ModelInferRequest
		code    codes.Code
		text    string
	}{
		{change(func(q *pb.ModelInferRequest) { q.ModelName = "cats" }), codes.NotFound, "Request for unknown model: 'cats' is not found"},
		{change(func(q *pb.ModelInferRequest) { q.ModelVersion = "9" }), codes.NotFound, "Request for unknown model: 'digits' version 9 is not found"},
		{change(func(q *pb.ModelInferRequest) { q.ModelVersion = "new" }), codes.InvalidArgument,
			"failed to get model version from specified version string 'new', version should be an integral value > 0"},
		{change(func(q *pb.ModelInferRequest) { q.Inputs[0].Name = "x" }), codes.InvalidArgument, "unexpected inference input 'x' for model 'digits'"},
		{change(func(q *pb.ModelInferRequest) { q.Inputs, q.RawInputContents = nil, nil }), codes.InvalidArgument,
			"expected 1 inputs but got 0 inputs for model 'digits'. Got inputs [], but missing required inputs ['image']. Please provide all required inputs."},
		{change(func(q *pb.ModelInferRequest) {
			q.Inputs, q.RawInputContents = append(q.Inputs, q.Inputs[0]), append(q.RawInputContents, q.RawInputContents[0])
		}), codes.InvalidArgument, "input 'image' already exists in request"},
		{change(func(q *pb.ModelInferRequest) { q.Inputs[0].Datatype = "FP64" }), codes.InvalidArgument,
			"inference input 'image' data-type is 'FP64', but model 'digits' expects 'FP32'"},
		{change(func(q *pb.ModelInferRequest) { q.Inputs[0].Shape = []int64{64} }), codes.InvalidArgument,
			"unexpected shape for input 'image' for model 'digits'. Expected [-1,64], got [64]"},
		{change(func(q *pb.ModelInferRequest) { q.Inputs[0].Shape[0] = 2 }), codes.InvalidArgument,
			"input byte size mismatch for input 'image' for model 'digits'. Expected 512, got 256"},
		{change(func(q *pb.ModelInferRequest) { q.Inputs[0].Shape[0] = 1 << 50 }), codes.InvalidArgument,
			"unexpected shape for input 'image' for model 'digits'. The shape [1125899906842624,64] is not possible"},
		{change(func(q *pb.ModelInferRequest) { q.Inputs[0].Shape[0], q.RawInputContents = 1<<20, nil }), codes.InvalidArgument,
			"shape [1048576,64] of input 'image' is of more than the 8388608 bytes that one tensor may have"},
		{change(func(q *pb.ModelInferRequest) { q.Inputs[0].Contents = &pb.InferTensorContents{Fp32Contents: row} }), codes.InvalidArgument,
			"contents field must not be specified when using raw_input_contents for 'image' for model 'digits'"},
		{change(func(q *pb.ModelInferRequest) { q.RawInputContents = nil }), codes.InvalidArgument,
			"unexpected number of elements 0 for input 'image' for model 'digits', expecting 64"},
		{change(func(q *pb.ModelInferRequest) { q.RawInputContents = append(q.RawInputContents, nil) }), codes.InvalidArgument,
			"raw_input_contents has 2 tensors, but the request has 1 inputs for model 'digits'; if one is raw, all must be"},
		{change(func(q *pb.ModelInferRequest) { q.Outputs = []*tensorOut{{Name: "cat"}} }), codes.InvalidArgument,
			"unexpected inference output 'cat' for model 'digits'"},
		{change(func(q *pb.ModelInferRequest) { q.Outputs = []*tensorOut{{Name: "label"}, {Name: "label"}} }), codes.InvalidArgument,
			"output 'label' is requested twice"},
		{change(parameter("sequence_id", &pb.InferParameter{ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: 3}})), codes.InvalidArgument,
			"'sequence_id' is not supported: the model is not stateful"},
		{change(parameter("timeout", &pb.InferParameter{ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: -3}})), codes.InvalidArgument,
			"parameter 'timeout' must be a whole number, 0..9223372036854775"},
		{change(func(q *pb.ModelInferRequest) {
			q.Inputs[0].Parameters = map[string]*pb.InferParameter{"shared_memory_region": {ParameterChoice: &pb.InferParameter_StringParam{StringParam: "x"}}}
		}), codes.InvalidArgument, "'shared_memory_region' is not supported: this server has no shared memory; send the data"},
	} {
		refused(t, r, service+"ModelInfer", c.request, &pb.ModelInferResponse{}, c.code, c.text)
	}
}

func TestTheBestClassesAreToldWithTheirLabels(t *testing.T) {
	r := start(t, digits(t), usual)
	heldout := testmodels.Digits(t)
	request := image("", heldout.Instances[0], heldout.Instances[1])
	request.Outputs = []*tensorOut{{Name: "probabilities", Parameters: map[string]*pb.InferParameter{
		"classification": {ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: 3}}}}}
	answer := ask[pb.ModelInferResponse](t, r, service+"ModelInfer", request)
	if out := answer.Outputs[0]; out.Datatype != "BYTES" || fmt.Sprint(out.Shape) != "[2 3]" {
		t.Fatalf("answered %v", answer)
	}
	bytes := answer.RawOutputContents[0]
	first := string(bytes[4 : 4+bytes[0]])
	if want := fmt.Sprintf(":%d:%d", heldout.Labels[0], heldout.Labels[0]); len(first) < 5 || first[len(first)-4:] != want {
		t.Errorf("the best class is %q; it should end in %q", first, want)
	}
}

func TestTheServerTellsWhatItServes(t *testing.T) {
	control := &controller{}
	r := start(t, digits(t), usual, func(_ *Options, p *Parts) { p.Control = control })
	if !ask[pb.ServerLiveResponse](t, r, service+"ServerLive", &pb.ServerLiveRequest{}).Live ||
		!ask[pb.ServerReadyResponse](t, r, service+"ServerReady", &pb.ServerReadyRequest{}).Ready {
		t.Error("not live, or not ready")
	}
	for request, ready := range map[*pb.ModelReadyRequest]bool{{Name: "digits"}: true, {Name: "digits", Version: "1"}: true,
		{Name: "digits", Version: "7"}: false, {Name: "cats"}: false} {
		if got := ask[pb.ModelReadyResponse](t, r, service+"ModelReady", request).Ready; got != ready {
			t.Errorf("%v is ready: %v", request, got)
		}
	}
	if server := ask[pb.ServerMetadataResponse](t, r, service+"ServerMetadata", &pb.ServerMetadataRequest{}); server.Name != "go_infer" || server.Version != "1.2.3" {
		t.Errorf("the server is %v", server)
	}
	m := ask[pb.ModelMetadataResponse](t, r, service+"ModelMetadata", &pb.ModelMetadataRequest{Name: "digits"})
	if fmt.Sprint(m.Versions) != "[1 2]" || m.Platform != "tensorflow_savedmodel" || m.Inputs[0].Datatype != "FP32" || fmt.Sprint(m.Inputs[0].Shape) != "[-1 64]" {
		t.Errorf("the model is %v", m)
	}
	c := ask[pb.ModelConfigResponse](t, r, service+"ModelConfig", &pb.ModelConfigRequest{Name: "digits"}).Config
	if c.MaxBatchSize != 32 || fmt.Sprint(c.Input[0].Dims) != "[64]" || c.Input[0].DataType != pb.DataType_TYPE_FP32 || c.GetDynamicBatching() == nil {
		t.Errorf("its configuration is %v", c)
	}
	ask[pb.ModelInferResponse](t, r, service+"ModelInfer", image("", make([]float32, 64), make([]float32, 64)))
	s := ask[pb.ModelStatisticsResponse](t, r, service+"ModelStatistics", &pb.ModelStatisticsRequest{Name: "digits", Version: "2"}).ModelStats
	if len(s) != 1 || s[0].InferenceCount != 2 || s[0].ExecutionCount != 1 || s[0].InferenceStats.Success.Count != 1 || s[0].BatchStats[0].BatchSize != 2 {
		t.Errorf("its statistics are %v", s)
	}
	if all := ask[pb.ModelStatisticsResponse](t, r, service+"ModelStatistics", &pb.ModelStatisticsRequest{}).ModelStats; len(all) != 2 {
		t.Errorf("%d versions have statistics", len(all))
	}
	if index := ask[pb.RepositoryIndexResponse](t, r, service+"RepositoryIndex", &pb.RepositoryIndexRequest{}).Models; len(index) != 2 || index[1].State != "READY" {
		t.Errorf("the index is %v", index)
	}
	ask[pb.RepositoryModelLoadResponse](t, r, service+"RepositoryModelLoad", &pb.RepositoryModelLoadRequest{ModelName: "digits"})
	ask[pb.RepositoryModelUnloadResponse](t, r, service+"RepositoryModelUnload", &pb.RepositoryModelUnloadRequest{ModelName: "digits"})
	if fmt.Sprint(control.asked) != "[load digits unload digits]" {
		t.Errorf("asked for %v", control.asked)
	}
	refused(t, r, service+"RepositoryModelLoad", &pb.RepositoryModelLoadRequest{ModelName: "cats"}, &pb.RepositoryModelLoadResponse{}, codes.NotFound,
		"failed to load 'cats', no version is available: no such model")
	refused(t, start(t, nil, usual), service+"RepositoryModelLoad", &pb.RepositoryModelLoadRequest{ModelName: "m"}, &pb.RepositoryModelLoadResponse{},
		codes.PermissionDenied, "failed to load 'm': explicit model load / unload is not allowed on this server; start it with --allow_model_control, or ask on its --control_port")
}

var streamDesc = &grpc.StreamDesc{StreamName: "ModelStreamInfer", ServerStreams: true, ClientStreams: true}

func TestAStreamAnswersInOrderAndOutlivesARefusal(t *testing.T) {
	r := start(t, digits(t), usual)
	stream, err := r.conn.NewStream(soon(t), streamDesc, service+"ModelStreamInfer")
	if err != nil {
		t.Fatal(err)
	}
	const requests = 100
	go func() {
		for i := range requests {
			request := image(fmt.Sprint(i), make([]float32, 64))
			if i%10 == 3 {
				request.Inputs[0].Name = "x"
			}
			if i%10 == 4 {
				request.Parameters = map[string]*pb.InferParameter{"triton_enable_empty_final_response": {ParameterChoice: &pb.InferParameter_BoolParam{BoolParam: true}}}
			}
			if stream.SendMsg(request) != nil {
				return
			}
		}
		_ = stream.CloseSend()
	}()
	for i := range requests {
		answer := &pb.ModelStreamInferResponse{}
		if err := stream.RecvMsg(answer); err != nil {
			t.Fatal(err)
		}
		want := ""
		if i%10 == 3 {
			want = "unexpected inference input 'x' for model 'digits'"
		}
		if answer.InferResponse.GetId() != fmt.Sprint(i) || answer.ErrorMessage != want || want == "" && len(answer.InferResponse.RawOutputContents) != 2 ||
			i%10 == 4 != answer.InferResponse.Parameters["triton_final_response"].GetBoolParam() {
			t.Fatalf("answer %d is %v", i, answer)
		}
	}
	if err := stream.RecvMsg(&pb.ModelStreamInferResponse{}); !errors.Is(err, io.EOF) {
		t.Errorf("the stream ended with %v", err)
	}
}

func TestARequestThatCannotBeInTimeCostsNoRun(t *testing.T) {
	r := start(t, digits(t), usual)
	ctx, cancel := context.WithTimeout(context.Background(), time.Nanosecond)
	defer cancel()
	err := r.conn.Invoke(ctx, service+"ModelInfer", image("", make([]float32, 64)), &pb.ModelInferResponse{})
	if grpcstatus.Code(err) != codes.DeadlineExceeded {
		t.Errorf("a deadline that has passed: %v", err)
	}
	request := image("", make([]float32, 64))
	request.Parameters = map[string]*pb.InferParameter{"timeout": {ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: 1}}}
	said := grpcstatus.Convert(r.conn.Invoke(soon(t), service+"ModelInfer", request, &pb.ModelInferResponse{}))
	if said.Code() != codes.DeadlineExceeded || said.Message() != "the request's deadline passed before model digits answered" {
		t.Errorf("a timeout of one microsecond: %v", said)
	}
}

// TestAnOverloadedServerSaysWhenToComeAgain fills a queue of one row.
func TestAnOverloadedServerSaysWhenToComeAgain(t *testing.T) {
	r := start(t, digits(t), batch.Limits{MaxBatch: 32, MaxQueue: 1, Slots: 1, Coalesce: true})
	type outcome struct {
		err   error
		after []string
	}
	outcomes := make(chan outcome)
	ctx := soon(t)
	const senders = 16
	for range senders {
		go func() {
			o := outcome{}
			for range 500 {
				trailer := grpcTrailer{}
				o.err = r.conn.Invoke(ctx, predict, &serving.PredictRequest{ModelSpec: spec("digits", ""), Inputs: inputs("image", floats(nil, 1000, 64))},
					&serving.PredictResponse{}, grpc.Trailer(&trailer.md))
				if o.after = trailer.md["grpc-retry-pushback-ms"]; o.err != nil {
					break
				}
			}
			outcomes <- o
		}()
	}
	seen := false
	for range senders {
		o := <-outcomes
		if o.err == nil {
			continue
		}
		seen = true
		after := 0
		if len(o.after) == 1 {
			after, _ = strconv.Atoi(o.after[0])
		}
		if grpcstatus.Code(o.err) != codes.Unavailable || after < 1 {
			t.Errorf("refused with %v and the pushback %v", o.err, o.after)
		}
	}
	if !seen {
		t.Error("nothing was refused")
	}
}
