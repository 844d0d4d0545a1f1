package model

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/savedmodel"
	"sluicegate/go_infer/internal/session"
	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/tensor"
	"sluicegate/go_infer/internal/testmodels"
)

// rowsProbe loads the probe of rows, as tried does.
func rowsProbe(t *testing.T, declared string, change func(*Options), adds ...func(directory string) error) (*Model, *tensor.Pool, *[]string, error) {
	t.Helper()
	return tried(t, "rows", declared, change, adds...)
}

// tried loads a probe, and returns what is told of it, too; declared, if not empty, is its declaration, and adds put more beside it.
func tried(t *testing.T, name, declared string, change func(*Options), adds ...func(directory string) error) (*Model, *tensor.Pool, *[]string, error) {
	t.Helper()
	directory := filepath.Join(testmodels.Probes(t), name, "1")
	if _, err := os.Stat(directory); err != nil {
		t.Fatal("the probes are old: run 'python -m backends.models.probes'")
	}
	if declared != "" || len(adds) > 0 {
		copied := t.TempDir()
		if err := os.CopyFS(copied, os.DirFS(directory)); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(copied, "assets.extra"), 0o755); err != nil {
			t.Fatal(err)
		}
		if declared != "" {
			adds = append(adds, func(directory string) error {
				return os.WriteFile(filepath.Join(directory, DeclarationFile), []byte(declared), 0o644)
			})
		}
		for _, add := range adds {
			if err := add(copied); err != nil {
				t.Fatal(err)
			}
		}
		directory = copied
	}
	var mu sync.Mutex
	told := &[]string{}
	pool := tensor.NewPool()
	options := Options{
		Limits:  batch.Limits{MaxBatch: 32, MaxQueue: 4096, Slots: 1, Coalesce: true},
		IntraOp: 1, Pool: pool, Events: unheard{},
		Tell: func(text string) { mu.Lock(); defer mu.Unlock(); *told = append(*told, text) },
	}
	if change != nil {
		change(&options)
	}
	m, err := Load(name, 1, directory, options)
	if err != nil {
		return nil, nil, told, err
	}
	t.Cleanup(func() {
		m.Close()
		if pool.Live() != 0 || session.Live() != 0 {
			t.Errorf("leaked %d slabs and %d TensorFlow tensors", pool.Live(), session.Live())
		}
		pool.Drain()
	})
	return m, pool, told, nil
}

// pairs runs rows of two numbers and returns the output and its shape.
func pairs(t *testing.T, s *Servable, pool *tensor.Pool, numbers ...float32) ([]float32, []int64, error) {
	t.Helper()
	request := NewRequest(1)
	defer request.Release()
	value, err := request.SetInput(0, pool, tensor.Float32, int64(len(numbers)/2), 2)
	if err != nil {
		t.Fatal(err)
	}
	copy(tensor.View[float32](value.Slab, len(numbers)), numbers)
	if err := request.CountRows(s.Signature); err != nil {
		return nil, nil, err
	}
	if err := s.Run(context.Background(), request); err != nil {
		return nil, nil, err
	}
	out := &request.Out[0]
	return slices.Clone(tensor.Cast[float32](out.Bytes())), slices.Clone(out.Dims), nil
}

func ones(n int) []float32 {
	all := make([]float32, n)
	for i := range all {
		all[i] = 1
	}
	return all
}

func TestASignatureIsBatchedOnlyIfItsRowsAreIndependent(t *testing.T) {
	m, _, told, err := rowsProbe(t, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, apart := range map[string]string{
		"serving_default": "", "positive": "", "random": "", "late": "",
		"ids":      "", // no made-up row is taken
		"relative": "depends on the rows beside it", "filtered": "has not one row per input row", "flat": "has not one row per input row",
		"wide": "depends on the rows beside it", "single": "it takes one row but not four",
	} {
		s := signature(t, m, name)
		if s.Apart == "" && apart != "" || !strings.Contains(s.Apart, apart) || s.Batchable() != (apart == "") {
			t.Errorf("%s: %q, want %q", name, s.Apart, apart)
		}
		said := slices.ContainsFunc(*told, func(text string) bool { return strings.Contains(text, `"`+name+`"`) })
		if said != (apart != "" || name == "ids") {
			t.Errorf("%s: told is %v: %q", name, said, *told)
		}
	}
}

func TestAModelThatTakesLongToTryIsLoadedAllTheSame(t *testing.T) {
	m, pool, told, err := rowsProbe(t, "", func(o *Options) { o.MadeUp = 1 })
	if err != nil {
		t.Fatal(err)
	}
	s := signature(t, m, "serving_default")
	if !strings.Contains(s.Apart, "was not found out in the time") || s.Batchable() {
		t.Errorf("%q, batchable: %v", s.Apart, s.Batchable())
	}
	if !slices.Contains(*told, `signature "serving_default" is not warmed from 1 rows on: the time for warming is over`) {
		t.Errorf("told %q", *told)
	}
	if out, _, err := pairs(t, s, pool, 1, 2, 3, 4); err != nil || !slices.Equal(out, []float32{2, 4, 6, 8}) {
		t.Errorf("%v, %v", out, err)
	}
	m, _, _, err = rowsProbe(t, "", func(o *Options) { o.MadeUp = 10 * time.Minute })
	if err != nil || !signature(t, m, "serving_default").Batchable() {
		t.Errorf("with time enough: %v, %v", err, signature(t, m, "serving_default").Apart)
	}
}

func TestAnswersAreThoseOfTheModelByItself(t *testing.T) {
	for _, off := range []bool{false, true} {
		m, pool, _, err := rowsProbe(t, "", func(o *Options) { o.Limits.Coalesce = !off })
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			signature string
			in        []float32
			first     float32
			dims      []int64
		}{
			{"relative", ones(6), 1. / 3, []int64{3, 2}},
			{"relative", ones(82), 1. / 41, []int64{41, 2}},
			{"filtered", []float32{1, 2, -1, 2, 3, 4}, 1, []int64{2, 2}},
			{"filtered", []float32{-1, 2}, 0, []int64{0, 2}},
			{"flat", []float32{5, 6, 7, 8}, 5, []int64{4}},
			{"wide", append(ones(80), 1, 40), 1, []int64{41, 40}},
			{"single", []float32{1, 2}, 2, []int64{1, 2}},
			{"positive", ones(2), 0, []int64{1, 2}},
			{"ids", []float32{-99, 0, -100, 0}, 2, []int64{2, 1}},
			{"serving_default", ones(82), 2, []int64{41, 2}},
		} {
			got, dims, err := pairs(t, signature(t, m, c.signature), pool, c.in...)
			if err != nil || !slices.Equal(dims, c.dims) || len(got) > 0 && got[0] != c.first {
				t.Errorf("batching off %v: %s of %v: %v of shape %v, want %v of shape %v (%v)", off, c.signature, c.in, got, dims, c.first, c.dims, err)
			}
		}
	}
}

func TestWhatIsFoundNotToAnswerRowByRowWhileItServesRunsApartFromThenOn(t *testing.T) {
	m, pool, told, err := rowsProbe(t, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	s := signature(t, m, "late")
	before := len(*told)
	for range 3 {
		got, dims, err := pairs(t, s, pool, 1, 2, 200, 2, 3, 4)
		if err != nil || !slices.Equal(got, []float32{1, 2, 3, 4}) || !slices.Equal(dims, []int64{2, 2}) {
			t.Errorf("%v of shape %v, %v", got, dims, err)
		}
	}
	if news := (*told)[before:]; len(news) != 1 || !strings.Contains(news[0], "from now on") {
		t.Errorf("told %q, want one line", news)
	}
	if _, _, err := pairs(t, s, pool, ones(82)...); err == nil || !strings.Contains(err.Error(), `"batching": false`) {
		t.Errorf("a request that is divided: %v", err)
	}
}

func TestWhatRefusesZerosOrNegativesIsWarmedWithOthersAlsoWithoutATrial(t *testing.T) {
	m, _, told, err := rowsProbe(t, "", func(o *Options) { o.Limits.Coalesce = false })
	if err != nil {
		t.Fatal(err)
	}
	if warmed := m.Signatures["positive"].runner.warmed; len(warmed) != 6 {
		t.Errorf("warmed are %v, told is %q", warmed, *told)
	}
}

func TestBatchingIsAsDeclared(t *testing.T) {
	for _, c := range []struct {
		declared        string
		change          func(*Options)
		plain, relative bool
	}{
		{`{"batching": false}`, nil, false, false},
		{`{"batching": true}`, nil, true, true},
		{`{"batching": {"relative": true}}`, nil, true, true},
		{`{"batching": {"serving_default": false}}`, nil, false, false},
		{"", func(o *Options) { o.Trust = true }, true, true},
		{"", func(o *Options) { o.Apart = func(string) string { return "an operator says so" } }, false, false},
	} {
		m, _, _, err := rowsProbe(t, c.declared, c.change)
		if err != nil {
			t.Errorf("%s: %v", c.declared, err)
			continue
		}
		if plain, relative := m.Signatures[DefaultSignature].Batchable(), m.Signatures["relative"].Batchable(); plain != c.plain || relative != c.relative {
			t.Errorf("%s: batched are %v and %v, want %v and %v", c.declared, plain, relative, c.plain, c.relative)
		}
	}
	for declared, text := range map[string]string{
		`{"batching": "no"}`:         "batching must be true, false or an object",
		`{"batching": {"no": true}}`: `batching names signature "no", which does not exist`,
	} {
		if _, _, _, err := rowsProbe(t, declared, nil); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", declared, err)
		}
	}
}

func TestADeclarationMayBeOfBatchingAlone(t *testing.T) {
	var d Declaration
	if err := json.Unmarshal([]byte(`{"signature": "serving_default", "batching": false}`), &d); err != nil || !d.bare() {
		t.Error(err, d.bare())
	}
}

// recordedRows is a warm-up file of one request of each of these rows of two numbers, to one signature.
func recordedRows(signature string, all ...[2]float32) string {
	field := func(number byte, content []byte) []byte {
		return append(binary.AppendUvarint([]byte{number<<3 | 2}, uint64(len(content))), content...)
	}
	masked := func(content []byte) []byte {
		sum := crc32.Checksum(content, crc32.MakeTable(crc32.Castagnoli))
		return binary.LittleEndian.AppendUint32(nil, (sum>>15|sum<<17)+0xa282ead8)
	}
	var file []byte
	for _, row := range all {
		var content []byte
		for _, number := range row {
			content = binary.LittleEndian.AppendUint32(content, math.Float32bits(number))
		}
		shape := field(2, append(field(2, []byte{8, 1}), field(2, []byte{8, 2})...)) // [1,2]
		proto := slices.Concat([]byte{8, 1}, shape, field(4, content))
		input := field(2, append(field(1, []byte("x")), field(2, proto)...))
		log := field(6, field(1, append(field(1, field(3, []byte(signature))), input...)))
		length := binary.LittleEndian.AppendUint64(nil, uint64(len(log)))
		file = slices.Concat(file, length, masked(length), log, masked(log))
	}
	return string(file)
}

func TestTooManyDimensionsCostTheirSignatureOnly(t *testing.T) {
	m, pool, _, err := rowsProbe(t, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = m.Signature("nine")
	if want := `signature "nine" cannot be served: tensor "y" has 9 dimensions; at most 8 are served`; err == nil || err.Error() != want {
		t.Errorf("said %v, want %s", err, want)
	}
	_, _, err = pairs(t, signature(t, m, "to_nine"), pool, 1, 2)
	if want := `tensor "y" has 9 dimensions; at most 8 are served`; err == nil || err.Error() != want || status.From(err).Code != status.Unimplemented {
		t.Errorf("said %v, want %s", err, want)
	}
}

func TestRecordedRequestsAreWhatRowsAreTriedWith(t *testing.T) {
	for _, c := range []struct {
		signature string
		rows      [][2]float32
		apart     string // why it is not batched
		told      bool
	}{
		{"ids", [][2]float32{{-100, 1}, {-99, 2}}, "", false},                           // no made-up row is taken
		{"ids", [][2]float32{{-100, 1}}, "", false},                                     // nor beside a single recorded one
		{"late", [][2]float32{{1, 1}, {200, 1}}, "has not one row per input row", true}, // made-up rows are all kept
		{"relative", [][2]float32{{1, 1}, {3, 1}, {1, 1}}, "depends on the rows beside it", true},
		{"relative", [][2]float32{{1, 1}}, "depends on the rows beside it", true}, // one row cannot tell: made-up ones do
		{"positive", [][2]float32{{1, 2}, {3, 4}, {5, 6}, {7, 8}, {9, 10}}, "", false},
	} {
		t.Run(fmt.Sprint(c.signature, " ", len(c.rows)), func(t *testing.T) {
			m, _, told, err := rowsProbe(t, "", func(*Options) {}, func(directory string) error {
				return os.WriteFile(filepath.Join(directory, savedmodel.WarmupFile), []byte(recordedRows(c.signature, c.rows...)), 0o600)
			})
			if err != nil {
				t.Fatal(err)
			}
			s := signature(t, m, c.signature)
			if s.Apart == "" && c.apart != "" || !strings.Contains(s.Apart, c.apart) {
				t.Errorf("apart: %q, want %q", s.Apart, c.apart)
			}
			said := slices.ContainsFunc(*told, func(text string) bool { return strings.Contains(text, `"`+c.signature+`"`) })
			if said != c.told {
				t.Errorf("told is %v: %q", said, *told)
			}
			if s.runner.content != rows(s.runner.recorded) {
				t.Errorf("it is warmed with %v", s.runner.content)
			}
		})
	}
}
