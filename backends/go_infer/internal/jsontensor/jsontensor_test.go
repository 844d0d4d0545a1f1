package jsontensor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/tensor"
)

func info(alias string, dtype tensor.DType, dims ...int64) model.TensorInfo {
	return model.TensorInfo{Alias: alias, Name: alias + ":0", Type: dtype, Dims: dims, Known: true}
}

func takes(inputs ...model.TensorInfo) *model.Signature { return &model.Signature{Inputs: inputs} }

func read(t *testing.T, s *model.Signature, body string) (*model.Request, error) {
	t.Helper()
	pool := tensor.NewPool()
	document, err := Scan([]byte(body))
	var request *model.Request
	if err == nil {
		request, err = document.Read(s, pool)
	}
	t.Cleanup(func() {
		if request != nil {
			request.Release()
		}
		if live := pool.Live(); live != 0 {
			t.Errorf("%d slabs leaked by %s", live, body)
		}
		pool.Drain()
	})
	return request, err
}

func TestEmptyListsAreRowsLikeOthers(t *testing.T) {
	for _, c := range []struct {
		body string
		dims []int64
		says string
	}{
		{`{"inputs":[[],[]]}`, []int64{2, 0}, ""},
		{`{"inputs":[ [ ] , [ ] , [] ]}`, []int64{3, 0}, ""},
		{`{"instances":[[],[]]}`, []int64{2, 0}, ""},
		{`{"inputs":[[]]}`, []int64{1, 0}, ""},
		{`{"inputs":[]}`, []int64{0, 0}, ""},
		{`{"inputs":[[],[1]]}`, nil, "unexpected size: 1"},
		{`{"instances":[[],[1]]}`, nil, "size"},
	} {
		request, err := read(t, takes(info("x", tensor.Float32, -1, -1)), c.body)
		if c.says != "" {
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v, want %s", c.body, err, c.says)
			}
		} else if err != nil || !slices.Equal(request.In[0].Dims, c.dims) {
			t.Errorf("%s: %v, want shape %v", c.body, err, c.dims)
		}
	}
	if request, err := read(t, takes(info("x", tensor.Float32, -1, 0)), `{"inputs":[[],[]]}`); err != nil || request.Rows != 2 {
		t.Errorf("without an element a row: %v", err)
	}
}

func TestReading(t *testing.T) {
	vector := takes(info("x", tensor.Float32, -1, 3))
	for _, c := range []struct {
		name, body string
		dims       []int64
		values     []float32
	}{
		{"rows", `{"instances":[[1,2.5,-3e2],[0,0.1,4]]}`, []int64{2, 3}, []float32{1, 2.5, -300, 0, .1, 4}},
		{"columns", `{"inputs":[[1,2,3]]}`, []int64{1, 3}, []float32{1, 2, 3}},
		{"a column by name", `{"inputs":{"x":[[1,2,3]]}}`, []int64{1, 3}, []float32{1, 2, 3}},
		{"rows by name", `{"instances":[{"x":[1,2,3]},{"x":[4,5,6]}]}`, []int64{2, 3}, []float32{1, 2, 3, 4, 5, 6}},
		{"space everywhere", " {\n\"instances\" : [ [ 1 , 2 ,\t3 ] ] , \"signature_name\" : \"s\" } ", []int64{1, 3}, []float32{1, 2, 3}},
		{"what is unknown is skipped", `{"a":{"b":[1,"]}"]},"instances":[[1,2,3]],"c":null}`, []int64{1, 3}, []float32{1, 2, 3}},
		{"an escaped key", `{"instances":[{"\u0078":[1,2,3]}]}`, []int64{1, 3}, []float32{1, 2, 3}},
		{"infinities", `{"instances":[[Infinity,-Infinity,-0]]}`, []int64{1, 3},
			[]float32{float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.Copysign(0, -1))}},
	} {
		t.Run(c.name, func(t *testing.T) {
			request, err := read(t, vector, c.body)
			if err != nil {
				t.Fatal(err)
			}
			got := tensor.Cast[float32](request.In[0].Bytes())
			if !slices.Equal(request.In[0].Dims, c.dims) || !slices.Equal(got, c.values) {
				t.Fatalf("got %v %v, want %v %v", request.In[0].Dims, got, c.dims, c.values)
			}
			if vector.Batchable() && request.Rows != int(c.dims[0]) {
				t.Fatalf("%d rows, want %d", request.Rows, c.dims[0])
			}
		})
	}
}

func TestEveryTypeIsReadExactly(t *testing.T) {
	for _, c := range []struct {
		dtype tensor.DType
		text  string
		read  func([]byte) string
	}{
		{tensor.Float64, "0.1", func(b []byte) string { return strconv.FormatFloat(tensor.Cast[float64](b)[0], 'g', -1, 64) }},
		{tensor.Int8, "-128", func(b []byte) string { return strconv.Itoa(int(tensor.Cast[int8](b)[0])) }},
		{tensor.Int16, "-32768", func(b []byte) string { return strconv.Itoa(int(tensor.Cast[int16](b)[0])) }},
		{tensor.Int32, "2147483647", func(b []byte) string { return strconv.Itoa(int(tensor.Cast[int32](b)[0])) }},
		{tensor.Int64, "-9223372036854775808", func(b []byte) string { return strconv.FormatInt(tensor.Cast[int64](b)[0], 10) }},
		{tensor.Uint8, "255", func(b []byte) string { return strconv.Itoa(int(tensor.Cast[uint8](b)[0])) }},
		{tensor.Uint16, "65535", func(b []byte) string { return strconv.Itoa(int(tensor.Cast[uint16](b)[0])) }},
		{tensor.Uint32, "4294967295", func(b []byte) string { return strconv.Itoa(int(tensor.Cast[uint32](b)[0])) }},
		{tensor.Uint64, "18446744073709551615", func(b []byte) string { return strconv.FormatUint(tensor.Cast[uint64](b)[0], 10) }},
		{tensor.Half, "0.099975586", func(b []byte) string {
			return strconv.FormatFloat(tensor.HalfValue(tensor.Cast[uint16](b)[0]), 'g', -1, 32)
		}},
		{tensor.BFloat16, "-255", func(b []byte) string {
			return strconv.FormatFloat(tensor.BFloat16Value(tensor.Cast[uint16](b)[0]), 'g', -1, 32)
		}},
		{tensor.Bool, "true", func(b []byte) string { return strconv.FormatBool(tensor.Cast[bool](b)[0]) }},
	} {
		request, err := read(t, takes(info("x", c.dtype, -1)), `{"instances":[`+c.text+`]}`)
		if err != nil {
			t.Errorf("%v %s: %v", c.dtype, c.text, err)
			continue
		}
		if got := c.read(request.In[0].Bytes()); got != c.text {
			t.Errorf("%v: got %s, want %s", c.dtype, got, c.text)
		}
	}
}

func TestRefusals(t *testing.T) {
	vector := takes(info("x", tensor.Float32, -1, 2))
	two := takes(info("a", tensor.Float32, -1), info("b", tensor.Int32, -1))
	for _, c := range []struct {
		s          *model.Signature
		body, says string
	}{
		{vector, ``, "JSON Parse error: The document is empty"},
		{vector, `[]`, "JSON Value: [] Is not object"},
		{vector, `{"instances":[[1,2]}`, "JSON Parse error: Missing a comma or ] after an array element. at offset: 19"},
		{vector, `{"instances":[[1,2]],}`, "JSON Parse error: Missing a name for object member. at offset: 21"},
		{vector, `{"instances" [[1,2]]}`, "JSON Parse error: Missing a colon after a name of object member. at offset: 13"},
		{vector, `{"instances":[[1,.5]]}`, "JSON Parse error: Invalid value. at offset: 17"},
		{vector, `{"instances":[[1,5.]]}`, "JSON Parse error: Miss fraction part in number. at offset: 19"},
		{vector, `{"instances":[[1,5e]]}`, "JSON Parse error: Miss exponent in number. at offset: 19"},
		{vector, `{"instances":[[1,01]]}`, "JSON Parse error: Missing a comma or ] after an array element. at offset: 18"},
		{vector, `{"a":"\x"}`, "JSON Parse error: Invalid escape character in string. at offset: 7"},
		{vector, `{"a":"`, "JSON Parse error: Missing a closing quotation mark in string. at offset: 6"},
		{vector, `{} x`, "JSON Parse error: The document root must not be followed by other values. at offset: 3"},
		{vector, `{"a":` + strings.Repeat("[", 100) + `}`, "JSON Parse error: Nested deeper than 64 levels."},
		{vector, `{}`, "Missing 'inputs' or 'instances' key"},
		{vector, `{"instances":[],"inputs":[]}`, "expecting only one of 'inputs' or 'instances' keys to exist"},
		{vector, `{"instances":{}}`, "Excepting 'instances' to be an list/array"},
		{vector, `{"instances":[]}`, "No values in 'instances' array"},
		{vector, `{"instances":[[1,2],[3]]}`, "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: Expecting tensor size: 2 but got: 1 at offset: 20"},
		{vector, `{"instances":[[1,2],[[1],[2]]]}`, "Error: INVALID_ARGUMENT: Expecting shape [2] but got: [2,1] at offset: 20"},
		{vector, `{"instances":[[1,2],[[1],[2,3]]]}`, "Encountered list at unexpected size: 2 at level: 1 expected size: 1 at offset: 25"},
		{vector, `{"instances":[[1,2],7]}`, "Expecting tensor size: 2 but got: 1 at offset: 20"},
		{vector, `{"instances":[[1,2,3]]}`, "unexpected size: 3 at level: 0 expected size: 2"},
		{vector, `{"instances":[[1,[2]]]}`, "Encountered list at unexpected level: 1 expected < 1"},
		{vector, `{"instances":[1]}`, "JSON Value: 1 found at incorrect level: 1 in the JSON DOM. Expected at level: 1"},
		{vector, `{"instances":[[1,"2"]]}`, `JSON Value: "2" Type: String is not of expected type: float`},
		{vector, `{"instances":[[1,null]]}`, "Type: Null is not of expected type: float"},
		{vector, `{"instances":[[1,16777216]]}`, "Cannot convert JSON value: 16777216 to float without loss of precision."},
		{vector, `{"instances":[[1,1e39]]}`, "Cannot convert JSON value: 1e39 to float without loss of precision."},
		{vector, `{"instances":[{"y":[1,2]}]}`, "JSON object: does not have named input: y"},
		{vector, `{"instances":[{"x":[1,2]},[1,2]]}`, "Expecting object but got list at item 1 of input list"},
		{vector, `{"instances":[[1,2],{"x":[1,2]}]}`, "Expecting value/list but got object at item 1 of input list"},
		{vector, `{"inputs":{"y":[]}}`, "Missing named input: x in 'inputs' object."},
		{vector, `{"inputs":[]}`, "the request has no rows"},
		{two, `{"instances":[1]}`, "instances is a plain list, but expecting list of objects as multiple input tensors required"},
		{two, `{"instances":[{"a":1}]}`, "keys must be equal to: a,b"},
		{two, `{"instances":[{"a":1,"a":2}]}`, "keys must be equal to: a,b"},
		{two, `{"instances":[{"a":1,"b":1.5}]}`, "JSON Value: 1.5 Type: Number is not of expected type: int32"},
		{two, `{"inputs":{"a":[1,2],"b":[1]}}`, `inputs "a" and "b" have 2 and 1 rows`},
		{two, `{"inputs":[1]}`, "inputs is a plain value/list, but expecting an object"},
		{takes(info("x", tensor.Uint8, -1)), `{"instances":[256]}`, "is not of expected type: uint8"},
		{takes(info("x", tensor.Int8, -1)), `{"instances":[-129]}`, "JSON Value: -129 Type: Number is not of expected type: int8 at offset: 14"},
		{takes(info("x", tensor.Int64, -1)), `{"instances":[9223372036854775808]}`, "is not of expected type: int64"},
		{takes(info("x", tensor.Uint64, -1)), `{"instances":[18446744073709551616]}`, "is not of expected type: uint64"},
		{takes(info("x", tensor.Uint64, -1)), `{"instances":[-1]}`, "is not of expected type: uint64"},
		{takes(info("x", tensor.Int32, -1)), `{"instances":[1.0]}`, "JSON Value: 1.0 Type: Number is not of expected type: int32"},
		{takes(info("x", tensor.Int32, -1)), `{"instances":[1e2]}`, "is not of expected type: int32"},
		{takes(info("x", tensor.Int32, -1)), `{"instances":[NaN]}`, "is not of expected type: int32"},
		{takes(info("x", tensor.Bool, -1)), `{"instances":[1]}`, "is not of expected type: bool"},
		{takes(info("x", tensor.Half, -1)), `{"instances":[2049]}`, "Cannot convert JSON value: 2049 to half without loss of precision. at offset: 14"},
		{takes(info("x", tensor.Half, -1)), `{"instances":[65520.0]}`, "Cannot convert JSON value: 65520.0 to half"},
		{takes(info("x", tensor.BFloat16, -1)), `{"instances":[257]}`, "Cannot convert JSON value: 257 to bfloat16"},
		{takes(info("x", tensor.String, -1)), `{"instances":["a",1]}`, "JSON Value: 1 Type: Number is not of expected type: string at offset: 18"},
		{takes(info("x", tensor.String, -1)), `{"instances":[{"b64":"a"}]}`, "Unable to base64 decode at offset: 14"},
		{takes(info("x", tensor.String, -1)), `{"instances":[{"b64":"YQ==","x":1}]}`, "does not have named input: b64"},
		{takes(info("x", tensor.String, -1)), `{"inputs":["a",{"b64":1}]}`, `JSON Value: {"b64":1} not formatted correctly for base64 data at offset: 15`},
		{takes(info("x", tensor.String, -1, 2)), `{"inputs":[["a","b"],["c"]]}`, "Encountered list at unexpected size: 1 at level: 1 expected size: 2"},
		{takes(info("x", tensor.String, -1, 2)), `{"inputs":["a"]}`, `JSON Value: "a" found at incorrect level: 2 in the JSON DOM. Expected at level: 2`},
		{takes(info("x", tensor.String, -1, 1<<40)), `{"inputs":[["a"]]}`, "the request has not that many values"},
		{vector, `{"a":"\ud800x"}`, "JSON Parse error: The surrogate pair in string is invalid. at offset: 12"},
		{vector, `{"a":"\udc00"}`, "JSON Parse error: The surrogate pair in string is invalid."},
		{takes(info("x", tensor.Float32, -1, 1<<40)), `{"instances":[[1]]}`, "the request has not that many values"},
	} {
		_, err := read(t, c.s, c.body)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%.60s\n got %v\nwant %s", c.body, err, c.says)
		}
	}
}

func TestAnErrorQuotesAtMost256Bytes(t *testing.T) {
	_, err := read(t, takes(info("x", tensor.Float32, -1)), `{"instances":{"x":"`+strings.Repeat("é", 4000)+`"}}`)
	if err == nil || len(err.Error()) > quoteLimit+100 {
		t.Fatalf("an error of %d bytes", len(err.Error()))
	}
}

func TestFreeInnerDimensionsFollowTheFirstRow(t *testing.T) {
	request, err := read(t, takes(info("x", tensor.Int32, -1, -1, 2)), `{"instances":[[[1,2],[3,4],[5,6]],[[1,2],[3,4],[5,6]]]}`)
	if err != nil || !slices.Equal(request.In[0].Dims, []int64{2, 3, 2}) {
		t.Fatalf("%v %v", request, err)
	}
	if _, err = read(t, takes(info("x", tensor.Int32, -1, -1)), `{"instances":[[1,2],[3]]}`); err == nil {
		t.Fatal("ragged rows were accepted")
	}
}

func TestFloatsAgreeWithStrconv(t *testing.T) {
	for _, token := range []string{
		"0", "-0", "1", "16", "0.1", "0.3", "1.5", "123.456", "9007199254740993", "0.000001", "3.4028234e38", "1e-45", "5e-324",
		"179769313486231570000", "0.1234567890123456789", "1E5", "1e+5", "123456789012345678901234567890", "-7.25",
	} {
		got, _, end := float([]byte(token), 0, false)
		want, err := strconv.ParseFloat(token, 64)
		if err != nil || got != want || end != len(token) {
			t.Errorf("%s: got %v (to %d), want %v", token, got, end, want)
		}
	}
}

// Every float32 between, at and beside the middles of neighbours, in every length of decimals, must come out as strconv has it.
func TestSingleFloatsAgreeWithStrconv(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 100000 {
		a := math.Float32frombits(random.Uint32() &^ (1 << 31))
		if b := math.Nextafter32(a, 1e38); !math.IsInf(float64(b), 0) && !math.IsNaN(float64(a)) {
			for _, value := range []float64{float64(a), (float64(a) + float64(b)) / 2, random.Float64() * 100} {
				token := strconv.FormatFloat(value, "eg"[random.IntN(2)], 5+random.IntN(16), 64)
				want, _ := strconv.ParseFloat(token, 64)
				got, _, end := float([]byte(token), 0, true)
				if float32(got) != float32(want) || end != len(token) {
					t.Fatalf("%s: got %v, want %v", token, float32(got), float32(want))
				}
			}
		}
	}
}

func TestWriting(t *testing.T) {
	pool := tensor.NewPool()
	defer pool.Drain()
	value := func(dtype tensor.DType, dims ...int64) *tensor.Value {
		v := &tensor.Value{Type: dtype, Dims: dims}
		slab, err := pool.Get(v.Size())
		if err != nil {
			t.Fatal(err)
		}
		v.Slab = slab
		return v
	}
	scores := value(tensor.Float32, 2, 2)
	copy(tensor.View[float32](scores.Slab, 4), []float32{1, float32(math.NaN()), .1, float32(math.Inf(-1))})
	labels := value(tensor.Int64, 2)
	copy(tensor.View[int64](labels.Slab, 2), []int64{7, -1})
	request := &model.Request{Out: []tensor.Value{*labels, *scores}}
	s := &model.Signature{Outputs: []model.TensorInfo{info("label", tensor.Int64, -1), info("p\"", tensor.Float32, -1, 2)}}
	rows, err := AppendRows(nil, s, request)
	if want := `[{"label":7,"p\"":[1.0,NaN]},{"label":-1,"p\"":[0.1,-Infinity]}]`; err != nil || string(rows) != want {
		t.Errorf("rows %s (%v), want %s", rows, err, want)
	}
	if got, want := string(AppendColumns(nil, s, request)), `{"label":[7,-1],"p\"":[[1.0,NaN],[0.1,-Infinity]]}`; got != want {
		t.Errorf("columns %s, want %s", got, want)
	}
	request.Out, s.Outputs = request.Out[:1], s.Outputs[:1]
	if rows, _ = AppendRows(nil, s, request); string(rows) != `[7,-1]` {
		t.Errorf("one output: %s, want a bare list", rows)
	}
}

// FuzzRead: whatever the bytes, no panic and no leak; and what encoding/json refuses must be refused here, NaN and infinities apart.
func FuzzRead(f *testing.F) {
	for _, seed := range []string{
		`{"instances":[[1,2]]}`, `{"inputs":{"x":[[1,-2.5e3]]}}`, `{"instances":[{"x":[NaN,Infinity]}]}`, `{"signature_name":"\u00e9","instances":[[]]}`,
		`{"instances":[[1,2],[3,4]],"x":{"b64":"aa"}}`, `{"instances":[`, `{"a":"\ud800"}`, "{\"\xff\":1}", `{"instances":[{"b64":"a"}]}`,
		`{"instances":["a\u00e9","\ud83d\ude00\n",{"b64":"AP8="},{"b64":"AP8"}]}`, `{"instances":[{"x":["a","b"],"y":1},{"y":1e9,"x":["","c"]}]}`,
		`{"examples":[{"a":[1,true],"b":1.5,"c":{"b64":"AA=="}},{"a":[]}],"context":{"d":["x"]}}`, `{"examples":[{"a":[1,1.5]}]}`,
		`{"inputs":"a"}`, `{"inputs":[]}`, `{"instances":[{}]}`, `{"instances":[1,[1]]}`, `{"instances":[-1.5e-300,123456789012345678901,0.1e400]}`,
	} {
		f.Add([]byte(seed))
	}
	signatures := []*model.Signature{
		takes(info("x", tensor.Float32, -1, 2)),
		takes(info("x", tensor.Int8, -1, -1)),
		takes(model.TensorInfo{Alias: "x", Type: tensor.Float64}),
		takes(info("x", tensor.Bool), info("y", tensor.Uint64, 2)),
		takes(info("x", tensor.String, -1)),
		takes(model.TensorInfo{Alias: "x", Type: tensor.String}),
		takes(info("x", tensor.String, -1, 2), info("y", tensor.Half, -1)),
	}
	pool := tensor.NewPool()
	f.Fuzz(func(t *testing.T, body []byte) {
		document, err := Scan(body)
		if err != nil {
			return
		}
		text := string(body)
		if !strings.Contains(text, "NaN") && !strings.Contains(text, "Inf") && !json.Valid(body) {
			t.Fatalf("accepted what is not JSON: %q", body)
		}
		_, _ = document.ReadExamples()
		for _, s := range signatures {
			if request, err := document.Read(s, pool); err == nil {
				request.Release()
			}
		}
		if pool.Live() != 0 {
			t.Fatalf("%d slabs leaked by %q", pool.Live(), body)
		}
	})
}

func TestStringsAreTextOrBase64(t *testing.T) {
	for _, c := range []struct{ name, body, want string }{
		{"text", `{"instances":["a","","é漢"]}`, `["a" "" "é漢"]`},
		{"every escape", `{"instances":["\"\\\/\b\f\n\r\t\u0000\u00e9"]}`, `["\"\\/\b\f\n\r\t\x00é"]`},
		{"a surrogate pair", `{"instances":["\ud83d\ude00!"]}`, `["😀!"]`},
		{"base64", `{"instances":[{"b64":"AP8="},{"b64":""},{"b64":"YWJj"}]}`, `["\x00\xff" "" "abc"]`},
		{"base64 without padding", `{"instances":[{"b64":"AP8"},{"b64":"YQ"}]}`, `["\x00\xff" "a"]`},
		{"base64 with escaped slashes", `{"instances":[{"b64":"\/\/8="}]}`, `["\xff\xff"]`},
		{"both in one list", `{"inputs":["text",{"b64":"YQ=="}]}`, `["text" "a"]`},
		{"by name", `{"instances":[{"x":"a"},{"x":{"b64":"Yg=="}}]}`, `["a" "b"]`},
		{"a column by name", `{"inputs":{"x":["a","b"]}}`, `["a" "b"]`},
	} {
		t.Run(c.name, func(t *testing.T) {
			request, err := read(t, takes(info("x", tensor.String, -1)), c.body)
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprintf("%q", request.In[0].Strings); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			for _, s := range request.In[0].Strings {
				if len(s) > 0 && cap(s) != len(s) {
					t.Errorf("%q can grow into its neighbour", s)
				}
			}
		})
	}
	request, err := read(t, takes(info("x", tensor.String)), `{"inputs":{"b64":"YWJj"}}`)
	if err != nil || string(request.In[0].Strings[0]) != "abc" || len(request.In[0].Dims) != 0 {
		t.Errorf("a scalar: %v %v", request, err)
	}
}

func TestTheStringsOfARequestOutliveItsBody(t *testing.T) {
	body := []byte(`{"instances":["first","second"]}`)
	document, err := Scan(body)
	if err != nil {
		t.Fatal(err)
	}
	request, err := document.Read(takes(info("x", tensor.String, -1)), tensor.NewPool())
	if err != nil {
		t.Fatal(err)
	}
	defer request.Release()
	clear(body) // its buffer is used for another request
	if got := fmt.Sprintf("%q", request.In[0].Strings); got != `["first" "second"]` {
		t.Errorf("got %s", got)
	}
}

func TestOutputsOfStringsAreBase64OnlyIfTheirNameSaysSo(t *testing.T) {
	values := [][]byte{[]byte("a\"\\\n\x01\x7fé"), {0xff, 0}}
	for alias, want := range map[string]string{
		"name":       `["a\"\\\n\u0001\u007fé","` + "\ufffd" + `\u0000"]`,
		"name_bytes": `[{"b64":"YSJcCgF/w6k="},{"b64":"/wA="}]`,
		"bytes":      `["a\"\\\n\u0001\u007fé","` + "\ufffd" + `\u0000"]`,
	} {
		request := &model.Request{Out: []tensor.Value{{Type: tensor.String, Dims: []int64{2}, Strings: values}}}
		s := &model.Signature{Outputs: []model.TensorInfo{info(alias, tensor.String, -1)}}
		rows, err := AppendRows(nil, s, request)
		if err != nil || string(rows) != want || string(AppendColumns(nil, s, request)) != want {
			t.Errorf("%s: rows %s (%v), want %s", alias, rows, err, want)
		}
		if !json.Valid(rows) {
			t.Errorf("%s: not JSON: %s", alias, rows)
		}
	}
}

func TestOutputsWithoutRowsAreRefusedInRowFormat(t *testing.T) {
	pool := tensor.NewPool()
	request := model.NewRequest(2)
	defer request.Release()
	for i, dims := range [][]int64{{2}, {3}} {
		if _, err := request.SetInput(i, pool, tensor.Bool, dims...); err != nil {
			t.Fatal(err)
		}
	}
	s := &model.Signature{Outputs: []model.TensorInfo{info("a", tensor.Bool, -1), info("b", tensor.Bool, -1)}}
	_, err := AppendRows(nil, s, &model.Request{Out: request.In})
	if err == nil || err.Error() != "Tensor name: b has inconsistent batch size: 3 expecting: 2" {
		t.Errorf("got %v", err)
	}
	_, err = AppendRows(nil, s, &model.Request{Out: []tensor.Value{{Type: tensor.Bool}}})
	if err == nil || !strings.HasPrefix(err.Error(), "Tensor name: a has no shape information ") {
		t.Errorf("got %v", err)
	}
}

// benchBody is a request of the demo's size, as Python's json.dumps writes it.
func benchBody(number string) []byte {
	return []byte(`{"instances": [[` + strings.Repeat(number+", ", 63) + `0.0]]}`)
}

func BenchmarkNumbers(b *testing.B) {
	pool := tensor.NewPool()
	for _, c := range []struct {
		name, number string
		dtype        tensor.DType
	}{
		{"short", "11.0", tensor.Float32},
		{"float32 as Python prints it", "0.30000001192092896", tensor.Float32},
		{"exponent", "1.25e-05", tensor.Float32},
		{"float64", "0.123456789012", tensor.Float64},
		{"half", "11.5", tensor.Half},
		{"int64", "123456", tensor.Int64},
		{"uint8", "255", tensor.Uint8},
	} {
		b.Run(c.name, func(b *testing.B) {
			body := benchBody(c.number)
			if c.dtype == tensor.Int64 || c.dtype == tensor.Uint8 {
				body = bytes.ReplaceAll(body, []byte("0.0"), []byte("0"))
			}
			s := takes(info("image", c.dtype, -1, 64))
			b.ReportAllocs()
			for b.Loop() {
				document, _ := Scan(body)
				request, err := document.Read(s, pool)
				if err != nil {
					b.Fatal(err)
				}
				request.Release()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/64, "ns/number")
		})
	}
}

func BenchmarkScanAndRead(b *testing.B) {
	body := []byte(`{"instances": [[` + strings.Repeat("11.0, ", 63) + `0.0]]}`)
	s, pool := takes(info("image", tensor.Float32, -1, 64)), tensor.NewPool()
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		document, _ := Scan(body)
		request, err := document.Read(s, pool)
		if err != nil {
			b.Fatal(err)
		}
		request.Release()
	}
}
