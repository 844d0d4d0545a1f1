package model_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/session"
	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/tensor"
	"sluicegate/go_infer/internal/testmodels"
)

type silent struct{}

func (silent) Batch(int, int)    {}
func (silent) Ran(time.Duration) {}
func (silent) Dropped(bool)      {}

func options(pool *tensor.Pool) model.Options {
	return model.Options{
		Limits:  batch.Limits{MaxBatch: 32, MaxQueue: 4096, Slots: 2, Coalesce: true},
		IntraOp: 1, Pool: pool, Events: silent{},
	}
}

func load(t *testing.T, name string, version int64) (*model.Model, *tensor.Pool) {
	t.Helper()
	pool := tensor.NewPool()
	directory := filepath.Join(testmodels.Directory(t), name, string(rune('0'+version)))
	m, err := model.Load(name, version, directory, options(pool))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.Close()
		if pool.Live() != 0 || session.Live() != 0 {
			t.Errorf("leaked %d slabs and %d TensorFlow tensors", pool.Live(), session.Live())
		}
		pool.Drain()
	})
	return m, pool
}

// labels runs rows as one request and returns the labels.
func labels(t *testing.T, s *model.Servable, pool *tensor.Pool, rows [][]float32) []int64 {
	t.Helper()
	request := model.NewRequest(1)
	defer request.Release()
	request.Rows = len(rows)
	value, err := request.SetInput(0, pool, tensor.Float32, int64(len(rows)), 64)
	if err != nil {
		t.Error(err)
		return nil
	}
	memory := tensor.View[float32](value.Slab, 64*len(rows))
	for i, row := range rows {
		copy(memory[i*64:], row)
	}
	if err := s.Run(context.Background(), request); err != nil {
		t.Error(err)
		return nil
	}
	out := &request.Out[s.Output("label")]
	return append([]int64(nil), tensor.Cast[int64](out.Bytes())...)
}

func accuracy(got, want []int64) float64 {
	right := 0
	for i := range got {
		if got[i] == want[i] {
			right++
		}
	}
	return float64(right) / float64(len(want))
}

func TestHeldOutAccuracyIsWhatTheModelDeclares(t *testing.T) {
	heldout := testmodels.Digits(t)
	for _, c := range []struct {
		name    string
		version int64
		floor   float64
	}{{"digits", 1, .93}, {"digits", 2, .97}, {"digits-small", 1, .9}} {
		m, pool := load(t, c.name, c.version)
		s, err := m.Signature("")
		if err != nil {
			t.Fatal(err)
		}
		// All rows in one request: it is split into batches and put together again.
		got := accuracy(labels(t, s, pool, heldout.Instances), heldout.Labels)
		if declared := m.Declared.HeldOut.Accuracy; got < c.floor || got < declared-.003 || got > declared+.003 {
			t.Errorf("%s/%d: accuracy %.4f, declared %.4f, floor %.2f", c.name, c.version, got, declared, c.floor)
		}
	}
}

func TestConcurrentRequestsGetTheirOwnAnswers(t *testing.T) {
	heldout := testmodels.Digits(t)
	m, pool := load(t, "digits", 2)
	s, _ := m.Signature("")
	alone := make([]int64, len(heldout.Instances))
	for i := range alone {
		alone[i] = labels(t, s, pool, heldout.Instances[i:i+1])[0]
	}
	var group sync.WaitGroup
	for client := range 16 {
		group.Add(1)
		go func() {
			defer group.Done()
			for i := client; i+3 <= len(alone); i += 16 {
				rows := 1 + i%3
				for n, label := range labels(t, s, pool, heldout.Instances[i:i+rows]) {
					if label != alone[i+n] {
						t.Errorf("digit %d: %d in a batch, %d alone", i+n, label, alone[i+n])
					}
				}
			}
		}()
	}
	group.Wait()
}

func TestSignatures(t *testing.T) {
	m, _ := load(t, "digits", 2)
	s, err := m.Signature("serving_default")
	if err != nil {
		t.Fatal(err)
	}
	in, out := s.Inputs[0], s.Outputs[s.Output("probabilities")]
	if in.Alias != "image" || in.Shape() != "[-1,64]" || in.Type != tensor.Float32 || out.Shape() != "[-1,10]" || !s.Batchable() {
		t.Errorf("input %+v, output %+v, batchable %v", in, out, s.Batchable())
	}
	_, err = m.Signature("other")
	if err == nil || err.Error() != `Serving signature name: "other" not found in signature def` {
		t.Errorf("got %v", err)
	}
}

func TestAClientThatLeftIsTold(t *testing.T) {
	m, pool := load(t, "digits", 1)
	s, _ := m.Signature("")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	request := model.NewRequest(1)
	defer request.Release()
	request.Rows = 1
	value, err := request.SetInput(0, pool, tensor.Float32, 1, 64)
	if err != nil {
		t.Fatal(err)
	}
	clear(value.Bytes())
	var refusal *status.Error
	if err := s.Run(ctx, request); err != nil && (!errors.As(err, &refusal) || refusal.Code != status.Cancelled) {
		t.Errorf("got %v", err)
	}
}

// spoil copies a version and lets change damage the copy.
func spoil(t *testing.T, change func(directory string) error) string {
	t.Helper()
	copied := filepath.Join(t.TempDir(), "1")
	if err := os.CopyFS(copied, os.DirFS(filepath.Join(testmodels.Directory(t), "digits/1"))); err != nil {
		t.Fatal(err)
	}
	if err := change(copied); err != nil {
		t.Fatal(err)
	}
	return copied
}

func TestBrokenModelsAreRefusedWithTheReason(t *testing.T) {
	remove := func(name string) func(string) error {
		return func(directory string) error { return os.RemoveAll(filepath.Join(directory, name)) }
	}
	write := func(name, content string) func(string) error {
		return func(directory string) error {
			return os.WriteFile(filepath.Join(directory, name), []byte(content), 0o600)
		}
	}
	truncate := func(name string, size int64) func(string) error {
		return func(directory string) error { return os.Truncate(filepath.Join(directory, name), size) }
	}
	declares := func(preprocess string) func(string) error {
		return write(model.DeclarationFile, `{"input":{"tensor":"image","preprocess":{`+preprocess+`}}}`)
	}
	const shard = "variables/variables.data-00000-of-00001"
	for _, c := range []struct {
		name   string
		change func(string) error
		says   string
	}{
		{"no graph", remove("saved_model.pb"), "saved_model.pb is missing"},
		{"no variables", remove("variables"), "variables/variables.index is missing"},
		{"no data", remove(shard), "variables/variables.data-* is missing"},
		{"empty graph", truncate("saved_model.pb", 0), "saved_model.pb is empty"},
		{"half a graph", truncate("saved_model.pb", 1000), "saved_model.pb: truncated or corrupted"},
		{"half the data", truncate(shard, 100), "variables.data-00000-of-00001 has 100 bytes; its variables need"},
		{"declaration is no JSON", write(model.DeclarationFile, "{"), "assets.extra/sluicegate.json: line 1: unexpected end of JSON input"},
		{"declaration of another tensor", write(model.DeclarationFile, `{"input":{"tensor":"pixels"}}`), `input.tensor names "pixels"`},
		{"declaration of another signature", write(model.DeclarationFile, `{"signature":"x"}`), `signature "x" does not exist`},
		{"unknown colour", declares(`"width": 8, "height": 8, "color": "red"`), `assets.extra/sluicegate.json: input.preprocess.color is "red"`},
		{"wrong element", declares(`"width": 8, "height": 8, "color": "rgb", "mean": [0, 300, "1"]`), "input.preprocess.mean is [0, 300, \"1\"]"},
		{"wrong type", write(model.DeclarationFile, `{"outputs":{"label":3}}`), "outputs.label is a number; it must be a string"},
		{"a list", write(model.DeclarationFile, `[]`), "it is a JSON array; it must be an object"},
		{"pictures that do not fit", declares(`"width": 8, "height": 9, "color": "grayscale", "range": [0, 16]`),
			`input.preprocess makes float [-1,9,8,1]; input "image" takes float [-1,64]`},
		{"pictures of another type", declares(`"width": 8, "height": 8, "color": "grayscale", "dtype": "uint8"`), "input.preprocess makes uint8 [-1,8,8,1]"},
		{"labels that do not fit", write(model.DeclarationFile, `{"outputs":{"scores":"probabilities"},"labels":["a"]}`),
			`labels has 1 labels, which output "probabilities", float [-1,10], has no scores for`},
		{"another output of another name", write(model.DeclarationFile, `{"outputs":{"more":{"x":{"tensor":"y"}}}}`), `outputs.more.x.tensor names "y"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			pool := tensor.NewPool()
			m, err := model.Load("digits", 1, spoil(t, c.change), options(pool))
			if err == nil {
				m.Close()
				t.Fatal("it was loaded")
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v\nwant %s", err, c.says)
			}
			if pool.Live() != 0 || session.Live() != 0 {
				t.Errorf("leaked %d slabs and %d tensors", pool.Live(), session.Live())
			}
			pool.Drain()
		})
	}
}

func TestAModelWithoutADeclarationServesTensors(t *testing.T) {
	pool := tensor.NewPool()
	directory := spoil(t, func(directory string) error { return os.RemoveAll(filepath.Join(directory, "assets.extra")) })
	m, err := model.Load("digits", 1, directory, options(pool))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if m.Declared != nil {
		t.Error("it declares something")
	}
	if _, err := os.Stat(filepath.Join(directory, model.DeclarationFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the test itself is wrong")
	}
}

// What the signature says of an output's size decides how it comes back; the answers are the same.
func TestARequestIsOneCCallIfTheSignatureTellsTheOutputsSize(t *testing.T) {
	for _, c := range []struct {
		name   string
		dims   []int64 // that the signature is made to declare for the probabilities
		ccalls int64
	}{
		{"as exported", []int64{-1, 10}, 1},
		{"size unknown", []int64{-1, -1}, 2},
		{"more than there is", []int64{-1, 12}, 1},
		{"less than there is", []int64{-1, 4}, 2},
		{"absurdly large", []int64{-1, 1 << 40}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			heldout := testmodels.Digits(t)
			m, pool := load(t, "digits", 2)
			s, _ := m.Signature("")
			want := labels(t, s, pool, heldout.Instances[:40])
			s.Outputs[s.Output("probabilities")].Dims = c.dims
			for n := range 40 {
				ask(t, s, pool, 1+n%32) // the pool has slabs of every size afterwards
			}
			before := runtime.NumCgoCall()
			const requests = 100
			for n := range requests {
				ask(t, s, pool, 1+n%32)
			}
			if made := runtime.NumCgoCall() - before; made != c.ccalls*requests {
				t.Errorf("%d C calls for %d requests, want %d each", made, requests, c.ccalls)
			}
			if session.Live() != 0 || pool.Live() != 0 {
				t.Errorf("%d tensors and %d slabs are held between requests", session.Live(), pool.Live())
			}
			if got := labels(t, s, pool, heldout.Instances[:40]); !slices.Equal(got, want) {
				t.Errorf("labels %v\nwant %v", got, want)
			}
		})
	}
}

func TestARequestThatFailsInTensorFlowFreesItsMemory(t *testing.T) {
	m, pool := load(t, "digits", 2)
	s, _ := m.Signature("")
	for range 3 {
		request := model.NewRequest(1)
		request.Rows = 1
		value, err := request.SetInput(0, pool, tensor.Float32, 1, 63)
		if err != nil {
			t.Fatal(err)
		}
		clear(value.Bytes())
		if err := s.Run(context.Background(), request); err == nil {
			t.Error("63 numbers were taken for 64")
		}
		request.Release()
		if session.Live() != 0 || pool.Live() != 0 {
			t.Errorf("leaked %d tensors and %d slabs", session.Live(), pool.Live())
		}
		ask(t, s, pool, 1)
	}
}

func BenchmarkRequest(b *testing.B) {
	for _, rows := range []int{1, 32} {
		b.Run(fmt.Sprintf("rows=%d", rows), func(b *testing.B) {
			pool := tensor.NewPool()
			m, err := model.Load("digits", 1, filepath.Join(testmodels.Directory(b), "digits/1"), options(pool))
			if err != nil {
				b.Fatal(err)
			}
			defer m.Close()
			s, _ := m.Signature("")
			before := runtime.NumCgoCall()
			b.ReportAllocs()
			for b.Loop() {
				ask(b, s, pool, rows)
			}
			b.ReportMetric(float64(runtime.NumCgoCall()-before)/float64(b.N), "ccalls/op")
		})
	}
}

// ask runs one request of zeros.
func ask(t testing.TB, s *model.Servable, pool *tensor.Pool, rows int) {
	request := model.NewRequest(1)
	defer request.Release()
	request.Rows = rows
	value, err := request.SetInput(0, pool, tensor.Float32, int64(rows), 64)
	if err != nil {
		t.Fatal(err)
	}
	clear(value.Bytes())
	if err := s.Run(context.Background(), request); err != nil {
		t.Fatal(err)
	}
}
