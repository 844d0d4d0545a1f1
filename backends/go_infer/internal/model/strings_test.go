package model

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/session"
	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/tensor"
	"sluicegate/go_infer/internal/testmodels"
)

type unheard struct{}

func (unheard) Batch(int, int)    {}
func (unheard) Ran(time.Duration) {}
func (unheard) Dropped(bool)      {}

// probe loads one of the probes; at the end nothing may be left of it.
func probe(t testing.TB, name string) (*Model, *tensor.Pool) {
	t.Helper()
	pool := tensor.NewPool()
	m, err := Load(name, 1, filepath.Join(testmodels.Probes(t), name, "1"), Options{
		Limits:  batch.Limits{MaxBatch: 32, MaxQueue: 4096, Slots: 2, Coalesce: true},
		IntraOp: 1, Pool: pool, Events: unheard{},
	})
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

func signature(t testing.TB, m *Model, name string) *Servable {
	t.Helper()
	s, err := m.Signature(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func texts(strings ...string) [][]byte {
	all := make([][]byte, len(strings))
	for i, s := range strings {
		all[i] = []byte(s)
	}
	return all
}

// said is a request of strings for a signature with one input.
func said(t testing.TB, rows int, strings [][]byte, dims ...int64) *Request {
	t.Helper()
	request := NewRequest(1)
	request.Rows = rows
	if err := request.SetStrings(0, strings, dims...); err != nil {
		t.Fatal(err)
	}
	return request
}

func TestStringsOfEveryLengthComeBackToTheRequestTheyCameFrom(t *testing.T) {
	m, _ := probe(t, "strings")
	s := signature(t, m, "")
	upper, length, echo := s.Output("upper"), s.Output("length"), s.Output("echo_bytes")
	lengths := []int{0, 1, 21, 22, 23, 100, 5000}
	var group sync.WaitGroup
	for client := range 16 {
		group.Add(1)
		go func() {
			defer group.Done()
			random := rand.New(rand.NewPCG(uint64(client), 1))
			for round := range 20 {
				rows := 1 + (client+round)%5
				if round == 19 {
					rows = 70 // larger than a batch: it is split and put together again
				}
				given := make([][]byte, rows)
				for i := range given {
					given[i] = make([]byte, lengths[random.IntN(len(lengths))])
					for k := range given[i] {
						given[i][k] = byte(random.UintN(256))
					}
				}
				request := said(t, rows, given, int64(rows))
				if err := s.Run(context.Background(), request); err != nil {
					t.Error(err)
				} else {
					counts := tensor.Cast[int32](request.Out[length].Bytes())
					for i, want := range given {
						if !bytes.Equal(request.Out[echo].Strings[i], want) || int(counts[i]) != len(want) {
							t.Errorf("row %d of %d: another string came back", i, rows)
						}
						if !bytes.Equal(request.Out[upper].Strings[i], asciiUpper(want)) {
							t.Errorf("row %d of %d is not in capitals", i, rows)
						}
					}
				}
				request.Release()
			}
		}()
	}
	group.Wait()
}

// asciiUpper is what tf.strings.upper does without an encoding.
func asciiUpper(text []byte) []byte {
	upper := bytes.Clone(text)
	for i, b := range upper {
		if 'a' <= b && b <= 'z' {
			upper[i] = b - 'a' + 'A'
		}
	}
	return upper
}

func TestShapesOfStrings(t *testing.T) {
	m, pool := probe(t, "strings")
	for _, c := range []struct {
		signature, input string
		given            [][]byte
		rows             int
		dims             []int64
		want             string
		shape            string
	}{
		{"join", "words", texts("a", "b", "c", "d", "e", "f"), 3, []int64{3, 2}, `["a b" "c d" "e f"]`, "[3]"},
		{"scalar", "text", texts("one"), 1, nil, `["ONE"]`, "[]"},
		{"split", "text", texts("a b c", "d"), 2, []int64{2}, `["a" "b" "c" "d" "" ""]`, "[2,3]"},
		{"tag", "text", texts("x", "y", "z"), 3, []int64{3}, `["x#10" "y#20" "z#30"]`, "[3]"},
	} {
		t.Run(c.signature, func(t *testing.T) {
			s := signature(t, m, c.signature)
			request := NewRequest(len(s.Inputs))
			defer request.Release()
			request.Rows = c.rows
			if err := request.SetStrings(s.Input(c.input), c.given, c.dims...); err != nil {
				t.Fatal(err)
			}
			if number := s.Input("number"); number >= 0 {
				value, err := request.SetInput(number, pool, tensor.Int32, 3)
				if err != nil {
					t.Fatal(err)
				}
				copy(tensor.View[int32](value.Slab, 3), []int32{10, 20, 30})
			}
			if err := s.Run(context.Background(), request); err != nil {
				t.Fatal(err)
			}
			out := &request.Out[0]
			if got := fmt.Sprintf("%q", out.Strings); got != c.want || tensor.ShapeText(out.Dims, true) != c.shape {
				t.Errorf("got %s %v, want %s %s", got, out.Dims, c.want, c.shape)
			}
		})
	}
}

func TestStringsMustBeAsManyAsTheirShapeSays(t *testing.T) {
	request := NewRequest(1)
	defer request.Release()
	err := request.SetStrings(0, texts("a", "b", "c"), 2, 2)
	if err == nil || err.Error() != "3 strings for a tensor of shape [2,2]" {
		t.Errorf("got %v", err)
	}
}

// A row that an operation refuses fails its own request. The neighbours in its batch are answered, whatever the padding.
func TestARefusedRowFailsItsOwnRequestOnly(t *testing.T) {
	m, _ := probe(t, "strings")
	s := signature(t, m, "numbers")
	var parts []batch.Part[*Request]
	for i, text := range []string{"1.5", "no number", "-3", "", "7"} {
		request := said(t, 2, texts(text, strconv.Itoa(i)), 2)
		defer request.Release()
		parts = append(parts, batch.Part[*Request]{Payload: request, Rows: 2})
	}
	if err := s.runner.run(0, parts); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"1.5", "", "-3", "", "7"} {
		request := parts[i].Payload
		if want == "" {
			if err := parts[i].Failed(); err == nil || status.From(err).Code != status.InvalidArgument {
				t.Errorf("request %d: %v, want its own refusal", i, err)
			}
			continue
		}
		if err := parts[i].Failed(); err != nil {
			t.Errorf("request %d failed with its neighbour: %v", i, err)
			continue
		}
		first := strconv.FormatFloat(float64(tensor.Cast[float32](request.Out[0].Bytes())[0]), 'g', -1, 32)
		if second := tensor.Cast[float32](request.Out[0].Bytes())[1]; first != want || second != float32(i) {
			t.Errorf("request %d: %s and %v", i, first, second)
		}
	}
	alone := said(t, 1, texts("x"), 1)
	err := s.Run(context.Background(), alone)
	alone.Release()
	if err == nil || !strings.Contains(err.Error(), "StringToNumberOp could not correctly convert string: x") {
		t.Errorf("a refused request alone: %v", err)
	}
	if session.Live() != 0 {
		t.Errorf("%d tensors after refusals", session.Live())
	}
}

func TestShortStringsCostOneCCallAndLongOnesTwo(t *testing.T) {
	m, _ := probe(t, "strings")
	s := signature(t, m, "scalar")
	for _, c := range []struct {
		length int
		ccalls int64
	}{{5, 1}, {stringRoom - 8, 1}, {stringRoom - 7, 2}, {100000, 2}} {
		ask := func() {
			request := said(t, 1, [][]byte{bytes.Repeat([]byte("x"), c.length)})
			defer request.Release()
			if err := s.Run(context.Background(), request); err != nil {
				t.Fatal(err)
			}
		}
		ask()
		before := runtime.NumCgoCall()
		for range 10 {
			ask()
		}
		if made := runtime.NumCgoCall() - before; made != 10*c.ccalls {
			t.Errorf("%d bytes: %d C calls for 10 requests, want %d each", c.length, made, c.ccalls)
		}
	}
}

func TestEveryServedTypeComesBackBitByBitAndTheOthersAreRefusedByName(t *testing.T) {
	m, pool := probe(t, "types")
	served := 0
	for _, name := range m.SignatureNames() {
		s := m.Signatures[name]
		dtype := s.Inputs[0].Type
		if !dtype.Moved() {
			_, err := m.Signature(name)
			want := fmt.Sprintf(`signature %q cannot be served: tensor "x" is %v`, name, dtype)
			if err == nil || err.Error() != want || status.From(err).Code != status.Unimplemented || strings.HasPrefix(dtype.String(), "dtype") {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		served++
		if dtype == tensor.String {
			continue // has tests of its own
		}
		for _, rows := range []int{1, 3} {
			request := NewRequest(1)
			request.Rows = rows
			value, err := request.SetInput(0, pool, dtype, int64(rows), 2)
			if err != nil {
				t.Fatal(err)
			}
			for i := range value.Bytes() {
				value.Bytes()[i] = byte(i) & 1 // a bool too
			}
			if err := s.Run(context.Background(), request); err != nil || !bytes.Equal(request.Out[0].Bytes(), value.Bytes()) {
				t.Errorf("%v: %v", dtype, err)
			}
			request.Release()
		}
	}
	if served != 14 {
		t.Errorf("%d types are served, want 14", served)
	}
}

// resident is the memory of this process, in bytes.
func resident(t *testing.T) int {
	t.Helper()
	content, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skip("no /proc here")
	}
	pages, _ := strconv.Atoi(strings.Fields(string(content))[1])
	return pages * os.Getpagesize()
}

// Hundreds of thousands of strings in and out leave nothing behind, in this process's counters or in the C allocator.
func TestStringsDoNotLeak(t *testing.T) {
	m, _ := probe(t, "strings")
	s := signature(t, m, "")
	given := make([][]byte, 32)
	for i := range given {
		given[i] = bytes.Repeat([]byte("y"), 1000)
	}
	rounds := func(n int) {
		for range n {
			request := said(t, len(given), given, int64(len(given)))
			if err := s.Run(context.Background(), request); err != nil {
				t.Fatal(err)
			}
			request.Release()
		}
	}
	rounds(500)
	before := resident(t)
	rounds(4000) // 128 MB of strings in, twice that out
	if grown := resident(t) - before; grown > 30<<20 {
		t.Errorf("resident memory grew by %d MB", grown>>20)
	}
}
