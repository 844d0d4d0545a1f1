package server_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"mime/multipart"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"sluicegate/go_infer/internal/testmodels"
)

// some is a few pictures of digits, with their labels, in a fixed order.
func some(t *testing.T, n int) (pictures [][]byte, labels []string) {
	t.Helper()
	found := testmodels.Pictures(t)
	names := make([]string, 0, len(found))
	for name := range found {
		names = append(names, name)
	}
	slices.Sort(names)
	for i := range n {
		name := names[i%len(names)]
		picture, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		pictures, labels = append(pictures, picture), append(labels, found[name])
	}
	return pictures, labels
}

func inJSON(pictures [][]byte, more string) string {
	var all []string
	for _, picture := range pictures {
		all = append(all, `{"b64":"`+base64.StdEncoding.EncodeToString(picture)+`"}`)
	}
	return `{"images":[` + strings.Join(all, ",") + `]` + more + `}`
}

func inForm(t *testing.T, pictures [][]byte, fields ...string) (kind, body string) {
	t.Helper()
	var form bytes.Buffer
	writer := multipart.NewWriter(&form)
	for i, picture := range pictures {
		part, _ := writer.CreateFormFile("image", fmt.Sprint(i, ".png"))
		_, _ = part.Write(picture)
	}
	for i := 0; i < len(fields); i += 2 {
		_ = writer.WriteField(fields[i], fields[i+1])
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return writer.FormDataContentType(), form.String()
}

type label struct {
	Label string
	Score float64
}

func TestSeveralPicturesAreClassifiedInOneRequest(t *testing.T) {
	s := start(t)
	pictures, labels := some(t, 40)
	kind, form := inForm(t, pictures)
	for _, c := range []struct{ kind, body string }{{"application/json", inJSON(pictures, "")}, {kind, form}} {
		response, body := s.do(t, "POST", "/classify?top=2", c.body, "Content-Type", c.kind)
		var answer struct{ Predictions [][]label }
		if err := json.Unmarshal([]byte(body), &answer); err != nil || response.StatusCode != 200 || len(answer.Predictions) != 40 {
			t.Fatalf("%s: %d %.300s: %v", c.kind, response.StatusCode, body, err)
		}
		for i, got := range answer.Predictions {
			if len(got) != 2 || got[0].Label != labels[i] || got[0].Score < got[1].Score {
				t.Errorf("%s: picture %d is %+v, want %s first, and two", c.kind, i, got, labels[i])
			}
		}
	}
}

func TestPreprocessAnswersTheTensorThatTheModelIsFed(t *testing.T) {
	s := start(t)
	pictures, labels := some(t, 3)
	response, body := s.do(t, "POST", "/preprocess?model=digits", inJSON(pictures, ""))
	var answer struct {
		Shape []int
		Dtype string
		Data  []float32
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || response.StatusCode != 200 {
		t.Fatalf("%d %s: %v", response.StatusCode, body, err)
	}
	if !slices.Equal(answer.Shape, []int{3, 8, 8, 1}) || answer.Dtype != "float32" || len(answer.Data) != 192 {
		t.Fatalf("%.300s", body)
	}
	_, predicted := s.do(t, "POST", "/predict", instances(t, answer.Data[:64], answer.Data[64:128], answer.Data[128:]))
	var best struct{ Predictions []label }
	if err := json.Unmarshal([]byte(predicted), &best); err != nil || len(best.Predictions) != 3 {
		t.Fatal(predicted)
	}
	for i, got := range best.Predictions {
		if got.Label != labels[i] {
			t.Errorf("the tensor of picture %d is predicted as %s, want %s", i, got.Label, labels[i])
		}
	}
	response, body = s.do(t, "POST", "/preprocess", string(pictures[0]), "Accept", "application/octet-stream")
	if got := response.Header; got.Get("Tensor-Shape") != "1,8,8,1" || got.Get("Tensor-Dtype") != "float32" || got.Get("Content-Type") != "application/octet-stream" || len(body) != 256 {
		t.Fatalf("%v, %d bytes", got, len(body))
	}
	for i := range 64 {
		if got := math.Float32frombits(binary.LittleEndian.Uint32([]byte(body)[4*i:])); got != answer.Data[i] {
			t.Fatalf("element %d is %v in binary, %v in JSON", i, got, answer.Data[i])
		}
	}
}

func TestPreprocessByTheRequestsOwnDeclaration(t *testing.T) {
	s := start(t)
	pictures, _ := some(t, 2)
	const own = `{"width": 3, "height": 2, "color": "rgb", "dtype": "uint8", "layout": "NCHW"}`
	kind, form := inForm(t, pictures, "preprocess", own)
	const query = "?width=3&height=2&color=rgb&dtype=uint8&layout=NCHW"
	first := ""
	for _, c := range []struct{ path, kind, body string }{
		{"/preprocess", "application/json", inJSON(pictures, `,"preprocess":`+own)},
		{"/preprocess", kind, form},
		{"/preprocess" + query, "application/json", inJSON(pictures, "")},
	} {
		response, body := s.do(t, "POST", c.path, c.body, "Content-Type", c.kind)
		if !strings.HasPrefix(body, `{"shape":[2,3,2,3],"dtype":"uint8","data":[`) || response.StatusCode != 200 || strings.Count(body, ",") != 3+2+35 {
			t.Fatalf("%s as %s: %d %s", c.path, c.kind, response.StatusCode, body)
		}
		if first == "" {
			first = body
		}
		if body != first {
			t.Errorf("%s as %s: %s\nand before: %s", c.path, c.kind, body, first)
		}
	}
	_, body := s.do(t, "POST", "/preprocess?width=1&height=1&color=grayscale&dtype=float16&range=0.5,0.5", string(pictures[0]))
	if body != `{"shape":[1,1,1,1],"dtype":"float16","data":[0.5]}`+"\n" {
		t.Error(body)
	}
}

func TestRefusalsOfPictures(t *testing.T) {
	s := start(t)
	pictures, _ := some(t, 1)
	picture, many := string(pictures[0]), make([][]byte, 41)
	for i := range many {
		many[i] = pictures[0][:64]
	}
	own := "?width=8&height=8&color=rgb&range=0,1"
	kind, empty := inForm(t, nil)
	for _, c := range []struct {
		path, kind, body string
		code             int
		says             string
	}{
		{"/classify?top=0", "", picture, 400, `top=\"0\" is not a number of labels`},
		{"/classify?top=x", "", picture, 400, "it must be 1 or more"},
		{"/classify", "", inJSON(many, ""), 400, "more than the 40 pictures that --max_images allows"},
		{"/classify", "", inJSON([][]byte{pictures[0], []byte("hello")}, ""), 415, "picture 2 of 2: the image is no JPEG"},
		{"/classify", "", inJSON(pictures, `,"preprocess":{}`), 400, "the model declares how its pictures are preprocessed"},
		{"/classify", "", `{"images":[]}`, 400, `\"images\" is empty`},
		{"/classify", "", `{"images":[{"b64":"!"}]}`, 400, "images[0].b64 is not base64"},
		{"/classify", "", `{"images":[3]}`, 400, "images[0] is no picture"},
		{"/classify", "", `{"images":["AA=="],"image":"AA=="}`, 400, `both \"image\" and \"images\"`},
		{"/classify", kind, empty, 400, "no file in the form"},
		{"/classify", "multipart/form-data", "x", 400, "the form cannot be read"},
		{"/classify", "", "", 400, "the image is empty"},
		{"/preprocess?model=other", "", picture, 404, "Latest(other)"},
		{"/preprocess" + own + "&model=digits", "", picture, 400, "names a model and declares preprocessing of its own"},
		{"/preprocess" + own, "", inJSON(pictures, `,"preprocess":{}`), 400, "in the query and in the body"},
		{"/preprocess?width=8", "", picture, 400, "preprocess.height is missing"},
		{"/preprocess?widht=8", "", picture, 400, "preprocess.widht is no parameter"},
		{"/preprocess", "", inJSON(pictures, `,"preprocess":{"width":-1,"height":1,"color":"rgb"}`), 400, "preprocess.width is -1"},
		{"/preprocess", "", inJSON(pictures, `,"preprocess":7`), 400, "preprocess is no JSON object"},
		{"/preprocess?width=4096&height=4096&color=rgb&dtype=uint8", "", picture, 400, "50331648 bytes; at most 1048576 are accepted (--max_image_tensor)"},
	} {
		response, body := s.do(t, "POST", c.path, c.body, "Content-Type", c.kind)
		if response.StatusCode != c.code || !strings.Contains(body, c.says) {
			t.Errorf("%s %.80q: %d %s\nwant %d %s", c.path, c.body, response.StatusCode, body, c.code, c.says)
		}
	}
}

func TestMoreOutputsAreToldAsDeclared(t *testing.T) {
	base := t.TempDir()
	for _, version := range []string{"1", "2"} {
		if err := os.CopyFS(filepath.Join(base, version), os.DirFS(filepath.Join(testmodels.Directory(t), "digits", version))); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(base, version, "assets.extra/sluicegate.json")
		content, _ := os.ReadFile(file)
		var declared map[string]any
		if err := json.Unmarshal(content, &declared); err != nil {
			t.Fatal(err)
		}
		outputs := map[string]any{"more": map[string]any{
			"number": map[string]any{"tensor": "label"},
			"roman":  map[string]any{"tensor": "probabilities", "labels": []string{"N", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX"}},
		}}
		if version == "2" {
			outputs["scores"] = "probabilities"
		}
		declared["outputs"] = outputs
		content, _ = json.Marshal(declared)
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := serve(t, base)
	pictures, labels := some(t, 2)
	type more struct {
		Number int
		Roman  []label
	}
	var one struct {
		Predictions []label
		Outputs     more
	}
	_, body := s.do(t, "POST", "/classify?top=1", string(pictures[0]))
	if err := json.Unmarshal([]byte(body), &one); err != nil || len(one.Predictions) != 1 || fmt.Sprint(one.Outputs.Number) != labels[0] || len(one.Outputs.Roman) != 1 {
		t.Errorf("%s: %v, want %s", body, err, labels[0])
	}
	var several struct {
		Predictions []label
		Outputs     []more
	}
	_, body = s.do(t, "POST", "/classify?version=1", inJSON(pictures, ""))
	if err := json.Unmarshal([]byte(body), &several); err != nil || several.Predictions != nil || len(several.Outputs) != 2 || len(several.Outputs[1].Roman) != 10 {
		t.Errorf("%s: %v", body, err)
	}
	if response, body := s.do(t, "POST", "/predict?version=1", `{"instances":[[1]]}`); response.StatusCode != 400 {
		t.Errorf("%d %s", response.StatusCode, body)
	}
}

func TestAFloodOfPicturesIsRefusedAtOnceAndHarmsNobodyElse(t *testing.T) {
	s := start(t)
	pictures, labels := some(t, 30)
	body := inJSON(pictures, "")
	query := url.Values{"width": {"128"}, "height": {"128"}, "color": {"grayscale"}, "dtype": {"uint8"}}
	var group sync.WaitGroup
	var mu sync.Mutex
	codes := map[int]int{}
	for range 24 {
		group.Go(func() {
			response, text := s.do(t, "POST", "/preprocess?"+query.Encode(), body)
			mu.Lock()
			defer mu.Unlock()
			codes[response.StatusCode]++
			if response.StatusCode == 503 && (!strings.Contains(text, "--max_image_queue") || response.Header.Get("Retry-After") == "") {
				t.Errorf("%s", text)
			}
		})
	}
	group.Wait()
	if codes[200] == 0 || codes[503] == 0 || codes[200]+codes[503] != 24 {
		t.Errorf("codes %v; some must have been answered and some refused", codes)
	}
	if _, text := s.do(t, "POST", "/classify?top=1", string(pictures[0])); !strings.Contains(text, `"predictions":[{"label":"`+labels[0]) {
		t.Errorf("after the flood: %s", text)
	}
}
