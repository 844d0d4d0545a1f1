package grpcserver

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sluicegate/go_infer/internal/pb/serving"
	"sluicegate/go_infer/internal/pb/tensorflow"
	"sluicegate/go_infer/internal/testmodels"
)

const (
	predict  = "/tensorflow.serving.PredictionService/Predict"
	classify = "/tensorflow.serving.PredictionService/Classify"
	regress  = "/tensorflow.serving.PredictionService/Regress"
	multi    = "/tensorflow.serving.PredictionService/MultiInference"
	metadata = "/tensorflow.serving.PredictionService/GetModelMetadata"
	status   = "/tensorflow.serving.ModelService/GetModelStatus"
	reload   = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
)

func shape(dims ...int64) *tensorflow.TensorShapeProto {
	s := &tensorflow.TensorShapeProto{}
	for _, dim := range dims {
		s.Dim = append(s.Dim, &tensorflow.TensorShapeProto_Dim{Size: dim})
	}
	return s
}

func floats(values []float32, dims ...int64) *tensorflow.TensorProto {
	return &tensorflow.TensorProto{Dtype: tensorflow.DataType_DT_FLOAT, TensorShape: shape(dims...), FloatVal: values}
}

func raw(values []float32, dims ...int64) *tensorflow.TensorProto {
	content := make([]byte, 0, 4*len(values))
	for _, value := range values {
		content = binary.LittleEndian.AppendUint32(content, math.Float32bits(value))
	}
	return &tensorflow.TensorProto{Dtype: tensorflow.DataType_DT_FLOAT, TensorShape: shape(dims...), TensorContent: content}
}

func words(values []string, dims ...int64) *tensorflow.TensorProto {
	t := &tensorflow.TensorProto{Dtype: tensorflow.DataType_DT_STRING, TensorShape: shape(dims...)}
	for _, value := range values {
		t.StringVal = append(t.StringVal, []byte(value))
	}
	return t
}

func spec(name, signature string) *serving.ModelSpec {
	return &serving.ModelSpec{Name: name, SignatureName: signature}
}

func inputs(alias string, t *tensorflow.TensorProto) map[string]*tensorflow.TensorProto {
	return map[string]*tensorflow.TensorProto{alias: t}
}

func TestPredictNamesTheDigits(t *testing.T) {
	r := start(t, digits(t), usual)
	heldout := testmodels.Digits(t)
	var all []float32
	const rows = 100 // more than a batch: split, and joined again
	for _, instance := range heldout.Instances[:rows] {
		all = append(all, instance...)
	}
	for name, input := range map[string]*tensorflow.TensorProto{"float_val": floats(all, rows, 64), "tensor_content": raw(all, rows, 64)} {
		answer := ask[serving.PredictResponse](t, r, predict, &serving.PredictRequest{ModelSpec: spec("digits", ""), Inputs: inputs("image", input)})
		label, probabilities := answer.Outputs["label"], answer.Outputs["probabilities"]
		if len(answer.Outputs) != 2 || len(label.Int64Val) != rows || len(probabilities.FloatVal) != 10*rows || len(label.TensorContent) > 0 {
			t.Fatalf("%s: answered %d labels and %d probabilities", name, len(label.Int64Val), len(probabilities.FloatVal))
		}
		right := 0
		for i, l := range label.Int64Val {
			if l == heldout.Labels[i] {
				right++
			}
		}
		if right < 95 {
			t.Errorf("%s: %d of %d are right", name, right, rows)
		}
		said := answer.ModelSpec
		if said.Name != "digits" || said.GetVersion().GetValue() != 2 || said.SignatureName != "serving_default" {
			t.Errorf("%s: it says that %v answered", name, said)
		}
	}
}

func TestPredictAnswersWithTensorContentWhenToldTo(t *testing.T) {
	r := start(t, digits(t), usual, func(o *Options, _ *Parts) { o.TensorContent = true })
	answer := ask[serving.PredictResponse](t, r, predict, &serving.PredictRequest{
		ModelSpec: spec("digits", ""), Inputs: inputs("image", floats(nil, 2, 64)), OutputFilter: []string{"label"}})
	label := answer.Outputs["label"]
	if len(answer.Outputs) != 1 || len(label.TensorContent) != 16 || len(label.Int64Val) != 0 {
		t.Errorf("answered %v", answer)
	}
}

func TestAVersionIsWhatTheSpecSays(t *testing.T) {
	r := start(t, digits(t), usual)
	request := &serving.PredictRequest{ModelSpec: spec("digits", "serving_default"), Inputs: inputs("image", floats(nil, 1, 64))}
	request.ModelSpec.VersionChoice = &serving.ModelSpec_Version{Version: wrapperspb.Int64(1)}
	if answer := ask[serving.PredictResponse](t, r, predict, request); answer.ModelSpec.GetVersion().GetValue() != 1 {
		t.Errorf("version 1 was asked for; %v answered", answer.ModelSpec)
	}
	request.ModelSpec.VersionChoice = &serving.ModelSpec_Version{Version: wrapperspb.Int64(0)} // OpenVINO's way to say none
	if answer := ask[serving.PredictResponse](t, r, predict, request); answer.ModelSpec.GetVersion().GetValue() != 2 {
		t.Errorf("version 0, which is not there, was asked for; %v answered", answer.ModelSpec)
	}
	request.ModelSpec.VersionChoice = &serving.ModelSpec_Version{Version: wrapperspb.Int64(7)}
	refused(t, r, predict, request, &serving.PredictResponse{}, codes.NotFound, "Servable not found for request: Specific(digits, 7)")
	request.ModelSpec.VersionChoice = &serving.ModelSpec_VersionLabel{VersionLabel: "stable"}
	refused(t, r, predict, request, &serving.PredictResponse{}, codes.InvalidArgument, "Unrecognized servable version label: stable")
}

func TestPredictRefusesAsTensorFlowServingDoes(t *testing.T) {
	r := start(t, digits(t), usual)
	good := floats(nil, 1, 64)
	double := &tensorflow.TensorProto{Dtype: tensorflow.DataType_DT_DOUBLE, TensorShape: shape(1, 64)}
	unknown := &tensorflow.TensorProto{Dtype: tensorflow.DataType_DT_FLOAT, TensorShape: &tensorflow.TensorShapeProto{UnknownRank: true}}
	for _, c := range []struct {
		request *serving.PredictRequest
		code    codes.Code
		text    string
	}{
		{&serving.PredictRequest{}, codes.InvalidArgument, "Missing ModelSpec"},
		{&serving.PredictRequest{ModelSpec: &serving.ModelSpec{}}, codes.InvalidArgument, "ModelSpec has no name specified."},
		{&serving.PredictRequest{ModelSpec: spec("cats", "")}, codes.NotFound, "Servable not found for request: Latest(cats)"},
		{&serving.PredictRequest{ModelSpec: spec("digits", "nope")}, codes.FailedPrecondition, `Serving signature key "nope" not found.`},
		{&serving.PredictRequest{ModelSpec: spec("digits", "")}, codes.InvalidArgument,
			"input size does not match signature: 0!=1 len({}) != len({image}). Sent extra: {}. Missing but required: {image}."},
		{&serving.PredictRequest{ModelSpec: spec("digits", ""), Inputs: inputs("picture", good)}, codes.InvalidArgument,
			"input size does not match signature: 1!=1 len({picture}) != len({image}). Sent extra: {picture}. Missing but required: {image}."},
		{&serving.PredictRequest{ModelSpec: spec("digits", ""), Inputs: inputs("image", double)}, codes.InvalidArgument,
			`Expects arg[0] to be float but double is provided (input "image" is float [-1,64])`},
		{&serving.PredictRequest{ModelSpec: spec("digits", ""), Inputs: inputs("image", floats(nil, 64))}, codes.InvalidArgument,
			`input "image" has shape [64]; the signature takes [-1,64]`},
		{&serving.PredictRequest{ModelSpec: spec("digits", ""), Inputs: inputs("image", floats(nil, 0, 64))}, codes.InvalidArgument,
			`the request has no rows; input "image" wants shape [-1,64]`},
		{&serving.PredictRequest{ModelSpec: spec("digits", ""), Inputs: inputs("image", raw(make([]float32, 63), 1, 64))}, codes.InvalidArgument,
			"tensor parsing error: image: tensor_content has 252 bytes; shape [1,64] of float takes 256"},
		{&serving.PredictRequest{ModelSpec: spec("digits", ""), Inputs: inputs("image", floats(nil, -1, 64))}, codes.InvalidArgument,
			"tensor parsing error: image: shape [-1,64] has a negative dimension"},
		{&serving.PredictRequest{ModelSpec: spec("digits", ""), Inputs: inputs("image", unknown)}, codes.InvalidArgument,
			"tensor parsing error: image: its rank is unknown; send a shape"},
		{&serving.PredictRequest{ModelSpec: spec("digits", ""), Inputs: inputs("image", floats(nil, 1<<40, 64))}, codes.InvalidArgument,
			"tensor parsing error: image: shape [1099511627776,64] is of more than the 8388608 bytes that one tensor may have"},
		{&serving.PredictRequest{ModelSpec: spec("digits", ""), Inputs: inputs("image", good), OutputFilter: []string{"cat"}}, codes.InvalidArgument,
			"output tensor alias not found in signature: cat Outputs expected to be in the set {label,probabilities}."},
		{&serving.PredictRequest{ModelSpec: spec("digits", ""), Inputs: inputs("image", good), OutputFilter: []string{"label", "label"}},
			codes.InvalidArgument, "duplicate output tensor alias: label"},
	} {
		refused(t, r, predict, c.request, &serving.PredictResponse{}, c.code, c.text)
	}
}

// typed are two rows of two elements of every type, in the typed field and in tensor_content.
func typed() map[string][2]*tensorflow.TensorProto {
	content := func(values any) []byte {
		var b bytes.Buffer
		_ = binary.Write(&b, binary.LittleEndian, values)
		return b.Bytes()
	}
	all := map[string][2]*tensorflow.TensorProto{}
	add := func(name string, dtype tensorflow.DataType, content []byte, fill func(*tensorflow.TensorProto)) {
		field := &tensorflow.TensorProto{Dtype: dtype, TensorShape: shape(2, 2)}
		fill(field)
		all[name] = [2]*tensorflow.TensorProto{field, {Dtype: dtype, TensorShape: shape(2, 2), TensorContent: content}}
	}
	add("float32", tensorflow.DataType_DT_FLOAT, content([]float32{1.5, -2, 3e38, 0}), func(p *tensorflow.TensorProto) { p.FloatVal = []float32{1.5, -2, 3e38, 0} })
	add("float64", tensorflow.DataType_DT_DOUBLE, content([]float64{1.5, -2, 1e300, 0}), func(p *tensorflow.TensorProto) { p.DoubleVal = []float64{1.5, -2, 1e300, 0} })
	add("int8", tensorflow.DataType_DT_INT8, content([]int8{-128, -1, 0, 127}), func(p *tensorflow.TensorProto) { p.IntVal = []int32{-128, -1, 0, 127} })
	add("int16", tensorflow.DataType_DT_INT16, content([]int16{-32768, -1, 0, 32767}), func(p *tensorflow.TensorProto) { p.IntVal = []int32{-32768, -1, 0, 32767} })
	add("int32", tensorflow.DataType_DT_INT32, content([]int32{math.MinInt32, -1, 0, math.MaxInt32}),
		func(p *tensorflow.TensorProto) { p.IntVal = []int32{math.MinInt32, -1, 0, math.MaxInt32} })
	add("int64", tensorflow.DataType_DT_INT64, content([]int64{math.MinInt64, -1, 0, math.MaxInt64}),
		func(p *tensorflow.TensorProto) { p.Int64Val = []int64{math.MinInt64, -1, 0, math.MaxInt64} })
	add("uint8", tensorflow.DataType_DT_UINT8, []byte{0, 1, 128, 255}, func(p *tensorflow.TensorProto) { p.IntVal = []int32{0, 1, 128, 255} })
	add("uint16", tensorflow.DataType_DT_UINT16, content([]uint16{0, 1, 32768, 65535}), func(p *tensorflow.TensorProto) { p.IntVal = []int32{0, 1, 32768, 65535} })
	add("uint32", tensorflow.DataType_DT_UINT32, content([]uint32{0, 1, 1 << 31, math.MaxUint32}),
		func(p *tensorflow.TensorProto) { p.Uint32Val = []uint32{0, 1, 1 << 31, math.MaxUint32} })
	add("uint64", tensorflow.DataType_DT_UINT64, content([]uint64{0, 1, 1 << 63, math.MaxUint64}),
		func(p *tensorflow.TensorProto) { p.Uint64Val = []uint64{0, 1, 1 << 63, math.MaxUint64} })
	add("bool", tensorflow.DataType_DT_BOOL, []byte{1, 0, 0, 1}, func(p *tensorflow.TensorProto) { p.BoolVal = []bool{true, false, false, true} })
	add("float16", tensorflow.DataType_DT_HALF, content([]uint16{0x3c00, 0xc000, 0x7bff, 0}), func(p *tensorflow.TensorProto) { p.HalfVal = []int32{0x3c00, 0xc000, 0x7bff, 0} })
	add("bfloat16", tensorflow.DataType_DT_BFLOAT16, content([]uint16{0x3f80, 0xc000, 0x7f7f, 0}), func(p *tensorflow.TensorProto) { p.HalfVal = []int32{0x3f80, 0xc000, 0x7f7f, 0} })
	var packed []byte
	for _, text := range []string{"a", "", "grüße", strings.Repeat("x", 300)} {
		packed = protowire.AppendVarint(packed, uint64(len(text)))
	}
	packed = append(packed, "agrüße"+strings.Repeat("x", 300)...)
	add("string", tensorflow.DataType_DT_STRING, packed, func(p *tensorflow.TensorProto) {
		p.StringVal = [][]byte{[]byte("a"), {}, []byte("grüße"), bytes.Repeat([]byte("x"), 300)}
	})
	return all
}

func TestEveryTypeComesBackAsItWas(t *testing.T) {
	for _, content := range []bool{false, true} {
		r := start(t, probes(t), usual, func(o *Options, _ *Parts) { o.TensorContent = content })
		for name, both := range typed() {
			want := both[0]
			if content {
				want = both[1]
			}
			for form, sent := range both {
				answer := ask[serving.PredictResponse](t, r, predict, &serving.PredictRequest{ModelSpec: spec("types", name), Inputs: inputs("x", sent)})
				if got := answer.Outputs["y"]; !proto.Equal(got, want) {
					t.Errorf("%s, sent in form %d, came back as\n%v, not\n%v", name, form, got, want)
				}
			}
		}
	}
}

func TestTheLastValueIsRepeatedAndTooManyAreIgnored(t *testing.T) {
	r := start(t, probes(t), usual)
	for _, c := range []struct {
		signature  string
		sent, want *tensorflow.TensorProto
	}{
		{"float32", floats([]float32{1, 2}, 2, 2), floats([]float32{1, 2, 2, 2}, 2, 2)},
		{"float32", floats([]float32{7}, 3, 2), floats([]float32{7, 7, 7, 7, 7, 7}, 3, 2)},
		{"float32", floats(nil, 1, 2), floats([]float32{0, 0}, 1, 2)},
		{"float32", floats([]float32{1, 2, 3}, 1, 2), floats([]float32{1, 2}, 1, 2)},
		{"string", words([]string{"a", "b"}, 2, 2), words([]string{"a", "b", "b", "b"}, 2, 2)},
		{"string", words(nil, 1, 2), words([]string{"", ""}, 1, 2)},
		{"string", words([]string{"a", "b", "c"}, 1, 2), words([]string{"a", "b"}, 1, 2)},
	} {
		answer := ask[serving.PredictResponse](t, r, predict, &serving.PredictRequest{ModelSpec: spec("types", c.signature), Inputs: inputs("x", c.sent)})
		if got := answer.Outputs["y"]; !proto.Equal(got, c.want) {
			t.Errorf("%v became %v, not %v", c.sent, got, c.want)
		}
	}
}

func flower(features map[string]float64) *tensorflow.Example {
	example := &tensorflow.Example{Features: &tensorflow.Features{Feature: map[string]*tensorflow.Feature{}}}
	for name, value := range features {
		example.Features.Feature[name] = &tensorflow.Feature{Kind: &tensorflow.Feature_FloatList{FloatList: &tensorflow.FloatList{Value: []float32{float32(value)}}}}
	}
	return example
}

func flowers(t testing.TB) (testmodels.Flowers, *serving.Input) {
	iris := testmodels.Iris(t)
	list := &serving.ExampleList{}
	for _, written := range iris.Examples {
		var features map[string]float64
		if err := json.Unmarshal(written, &features); err != nil {
			t.Fatal(err)
		}
		list.Examples = append(list.Examples, flower(features))
	}
	return iris, &serving.Input{Kind: &serving.Input_ExampleList{ExampleList: list}}
}

func accuracy(iris testmodels.Flowers, result *serving.ClassificationResult) float64 {
	right := 0
	for i, row := range result.Classifications {
		best := slices.MaxFunc(row.Classes, func(a, b *serving.Class) int { return int(math.Copysign(1, float64(a.Score-b.Score))) })
		if best.Label == iris.Labels[i] {
			right++
		}
	}
	return float64(right) / float64(len(iris.Labels))
}

func rootMeanSquare(iris testmodels.Flowers, result *serving.RegressionResult) float64 {
	sum := 0.0
	for i, row := range result.Regressions {
		sum += math.Pow(float64(row.Value)-iris.Widths[i], 2)
	}
	return math.Sqrt(sum / float64(len(iris.Widths)))
}

func TestFlowersAreNamedAndMeasured(t *testing.T) {
	r := start(t, probes(t), usual)
	iris, input := flowers(t)
	named := ask[serving.ClassificationResponse](t, r, classify, &serving.ClassificationRequest{ModelSpec: spec("iris", ""), Input: input})
	if got := accuracy(iris, named.Result); math.Abs(got-iris.Accuracy) > 1e-9 {
		t.Errorf("%.3f of the flowers are named rightly; %.3f were when the model was made", got, iris.Accuracy)
	}
	if named.ModelSpec.SignatureName != "serving_default" || named.ModelSpec.GetVersion().GetValue() != 1 {
		t.Errorf("it says that %v answered", named.ModelSpec)
	}
	for _, signature := range []string{"regress", "regress_column"} {
		measured := ask[serving.RegressionResponse](t, r, regress, &serving.RegressionRequest{ModelSpec: spec("iris", signature), Input: input})
		if got := rootMeanSquare(iris, measured.Result); math.Abs(got-iris.Error) > 1e-4 {
			t.Errorf("%s: off by %.4f cm; %.4f when the model was made", signature, got, iris.Error)
		}
	}
	both := ask[serving.MultiInferenceResponse](t, r, multi, &serving.MultiInferenceRequest{Input: input, Tasks: []*serving.InferenceTask{
		{ModelSpec: spec("iris", "classify"), MethodName: "tensorflow/serving/classify"},
		{ModelSpec: spec("iris", "regress"), MethodName: "tensorflow/serving/regress"},
	}})
	if len(both.Results) != 2 || accuracy(iris, both.Results[0].GetClassificationResult()) != iris.Accuracy ||
		math.Abs(rootMeanSquare(iris, both.Results[1].GetRegressionResult())-iris.Error) > 1e-4 || both.Results[1].ModelSpec.SignatureName != "regress" {
		t.Errorf("both at once are not what each is: %v", both)
	}
	only := ask[serving.ClassificationResponse](t, r, classify, &serving.ClassificationRequest{ModelSpec: spec("iris", "scores"), Input: input})
	if class := only.Result.Classifications[0].Classes[0]; class.Label != "" || class.Score == 0 {
		t.Errorf("scores alone are %v", class)
	}
}

func TestAContextIsAPartOfEveryExample(t *testing.T) {
	r := start(t, probes(t), usual)
	whole := ask[serving.RegressionResponse](t, r, regress, &serving.RegressionRequest{ModelSpec: spec("iris", "regress"),
		Input: &serving.Input{Kind: &serving.Input_ExampleList{ExampleList: &serving.ExampleList{Examples: []*tensorflow.Example{
			flower(map[string]float64{"sepal_length": 5, "sepal_width": 3, "petal_length": 1}),
			flower(map[string]float64{"sepal_length": 5, "sepal_width": 3, "petal_length": 6}),
		}}}}})
	parts := ask[serving.RegressionResponse](t, r, regress, &serving.RegressionRequest{ModelSpec: spec("iris", "regress"),
		Input: &serving.Input{Kind: &serving.Input_ExampleListWithContext{ExampleListWithContext: &serving.ExampleListWithContext{
			Context: flower(map[string]float64{"sepal_length": 5, "sepal_width": 3}),
			Examples: []*tensorflow.Example{
				flower(map[string]float64{"petal_length": 1}),
				flower(map[string]float64{"petal_length": 6}),
			}}}}})
	if !proto.Equal(whole.Result, parts.Result) || whole.Result.Regressions[0].Value == whole.Result.Regressions[1].Value {
		t.Errorf("with a context %v, without %v", parts.Result, whole.Result)
	}
}

func TestExamplesAreRefusedAsTensorFlowServingDoes(t *testing.T) {
	r := start(t, probes(t), usual)
	_, input := flowers(t)
	c := &serving.ClassificationResponse{}
	refused(t, r, classify, &serving.ClassificationRequest{}, c, codes.InvalidArgument, "Missing ModelSpec")
	refused(t, r, classify, &serving.ClassificationRequest{ModelSpec: spec("iris", "")}, c, codes.InvalidArgument, "Input is empty.")
	refused(t, r, classify, &serving.ClassificationRequest{ModelSpec: spec("iris", "x"), Input: input}, c, codes.InvalidArgument,
		"No signature was found with the name: x")
	refused(t, r, classify, &serving.ClassificationRequest{ModelSpec: spec("iris", "regress"), Input: input}, c, codes.InvalidArgument,
		"Expected classification signature method_name to be tensorflow/serving/classify. Was: tensorflow/serving/regress")
	refused(t, r, regress, &serving.RegressionRequest{ModelSpec: spec("iris", ""), Input: input}, &serving.RegressionResponse{}, codes.InvalidArgument,
		"Expected regression signature method_name to be tensorflow/serving/regress. Was: tensorflow/serving/classify")
	for _, m := range []struct {
		tasks []*serving.InferenceTask
		code  codes.Code
		text  string
	}{
		{nil, codes.InvalidArgument, "Missing ModelSpec"},
		{[]*serving.InferenceTask{{ModelSpec: spec("iris", ""), MethodName: "tensorflow/serving/predict"}}, codes.Unimplemented,
			"Unsupported signature method_name: tensorflow/serving/predict"},
		{[]*serving.InferenceTask{{ModelSpec: spec("iris", "classify"), MethodName: "tensorflow/serving/classify"},
			{ModelSpec: spec("iris", "classify"), MethodName: "tensorflow/serving/classify"}}, codes.InvalidArgument,
			"Duplicate evaluation of signature: classify"},
		{[]*serving.InferenceTask{{ModelSpec: spec("iris", "classify"), MethodName: "tensorflow/serving/classify"},
			{ModelSpec: spec("types", "int8"), MethodName: "tensorflow/serving/classify"}}, codes.InvalidArgument,
			"All ModelSpecs in a MultiInferenceRequest must access the same model name."},
		{[]*serving.InferenceTask{{ModelSpec: spec("iris", "none"), MethodName: "tensorflow/serving/classify"}}, codes.InvalidArgument,
			"Requested signature not found in model graph: none"},
	} {
		refused(t, r, multi, &serving.MultiInferenceRequest{Tasks: m.tasks, Input: input}, &serving.MultiInferenceResponse{}, m.code, m.text)
	}
}

func TestMetadataAndStatusAreWhatIsServed(t *testing.T) {
	r := start(t, digits(t), usual)
	told := ask[serving.GetModelMetadataResponse](t, r, metadata, &serving.GetModelMetadataRequest{ModelSpec: spec("digits", ""), MetadataField: []string{"signature_def"}})
	all := &serving.SignatureDefMap{}
	if err := told.Metadata["signature_def"].UnmarshalTo(all); err != nil {
		t.Fatal(err)
	}
	image := all.SignatureDef["serving_default"].GetInputs()["image"]
	if image.GetDtype() != tensorflow.DataType_DT_FLOAT || fmt.Sprint(image.GetTensorShape().GetDim()[1].Size) != "64" || told.ModelSpec.GetVersion().GetValue() != 2 {
		t.Errorf("the metadata is %v", told)
	}
	g := &serving.GetModelMetadataResponse{}
	refused(t, r, metadata, &serving.GetModelMetadataRequest{}, g, codes.InvalidArgument, "Missing ModelSpec")
	refused(t, r, metadata, &serving.GetModelMetadataRequest{ModelSpec: spec("digits", "")}, g, codes.InvalidArgument,
		"GetModelMetadataRequest must specify at least one metadata_field")
	refused(t, r, metadata, &serving.GetModelMetadataRequest{ModelSpec: spec("digits", ""), MetadataField: []string{"x"}}, g, codes.InvalidArgument,
		"Metadata field x is not supported")

	versions := ask[serving.GetModelStatusResponse](t, r, status, &serving.GetModelStatusRequest{ModelSpec: spec("digits", "")}).ModelVersionStatus
	if len(versions) != 2 || versions[0].Version != 2 || versions[0].State != serving.ModelVersionStatus_AVAILABLE || versions[0].Status.ErrorMessage != "" {
		t.Errorf("the status is %v", versions)
	}
	refused(t, r, status, &serving.GetModelStatusRequest{ModelSpec: spec("cats", "")}, &serving.GetModelStatusResponse{}, codes.NotFound,
		"Could not find any versions of model cats")
	refused(t, r, status, &serving.GetModelStatusRequest{ModelSpec: &serving.ModelSpec{Name: "digits",
		VersionChoice: &serving.ModelSpec_Version{Version: wrapperspb.Int64(9)}}}, &serving.GetModelStatusResponse{}, codes.NotFound,
		"Could not find version 9 of model digits")
}

func TestAConfigurationIsReloadedOrRefused(t *testing.T) {
	list := &serving.ModelServerConfig{Config: &serving.ModelServerConfig_ModelConfigList{ModelConfigList: &serving.ModelConfigList{
		Config: []*serving.ModelConfig{{Name: "digits", BasePath: "/models/digits"}}}}}
	r := start(t, nil, usual)
	refused(t, r, reload, &serving.ReloadConfigRequest{Config: list}, &serving.ReloadConfigResponse{}, codes.PermissionDenied,
		"HandleReloadConfigRequest is not allowed on this server; start it with --allow_model_control, or ask on its --control_port")
	taken := &reloader{}
	r = start(t, nil, usual, func(_ *Options, p *Parts) { p.Reloader = taken })
	refused(t, r, reload, &serving.ReloadConfigRequest{}, &serving.ReloadConfigResponse{}, codes.InvalidArgument,
		"ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently supported")
	answer := ask[serving.ReloadConfigResponse](t, r, reload, &serving.ReloadConfigRequest{Config: list})
	if answer.Status.GetErrorCode() != 0 || !proto.Equal(taken.config, list) {
		t.Errorf("answered %v, reloaded %v", answer, taken.config)
	}
}
