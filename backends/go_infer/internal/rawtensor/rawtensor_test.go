package rawtensor

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/tensor"
)

// packed is strings in their raw form.
func packed(all ...string) (raw []byte) {
	for _, s := range all {
		raw = binary.LittleEndian.AppendUint32(raw, uint32(len(s)))
		raw = append(raw, s...)
	}
	return raw
}

// ways are readers that give all at once, and a byte at a time.
var ways = map[string]func(raw []byte, request *model.Request, pool *tensor.Pool, dtype tensor.DType, dims ...int64) error{
	"whole": func(raw []byte, request *model.Request, pool *tensor.Pool, dtype tensor.DType, dims ...int64) error {
		return Read(bytes.NewReader(raw), len(raw), request, 0, "x", pool, dtype, dims...)
	},
	"slow": func(raw []byte, request *model.Request, pool *tensor.Pool, dtype tensor.DType, dims ...int64) error {
		return Read(iotest.OneByteReader(bytes.NewReader(raw)), len(raw), request, 0, "x", pool, dtype, dims...)
	},
}

func TestEveryTypeComesBackAsItWasSent(t *testing.T) {
	pool := tensor.NewPool()
	defer pool.Drain()
	for dtype := range tensor.DType(40) {
		if !dtype.Moved() {
			continue
		}
		raw := packed("", "a", "\x00\xff", strings.Repeat("long", 40000), "e", "f")
		if size := dtype.Size(); size > 0 {
			raw = make([]byte, 6*size)
			for i := range raw {
				raw[i] = byte(i % 2)
			}
		}
		for name, way := range ways {
			request := model.NewRequest(1)
			if err := way(raw, request, pool, dtype, 2, 3); err != nil {
				t.Fatalf("%s %v: %v", name, dtype, err)
			}
			if got := Append(nil, &request.In[0]); !bytes.Equal(got, raw) || Size(&request.In[0]) != len(raw) {
				t.Errorf("%s %v: %d other bytes came back, %d announced", name, dtype, len(got), Size(&request.In[0]))
			}
			request.Release()
		}
	}
	if pool.Live() != 0 {
		t.Errorf("%d slabs leaked", pool.Live())
	}
}

func TestWrongSizesAreRefusedWithBothNumbers(t *testing.T) {
	pool := tensor.NewPool()
	defer pool.Drain()
	for _, c := range []struct {
		raw   []byte
		dtype tensor.DType
		dims  []int64
		says  string
	}{
		{make([]byte, 23), tensor.Float32, []int64{2, 3}, `input "x": float in shape [2,3] takes 24 bytes; got 23`},
		{make([]byte, 25), tensor.Float32, []int64{2, 3}, `input "x": float in shape [2,3] takes 24 bytes; got 25`},
		{nil, tensor.Int64, nil, `input "x": int64 in shape [] takes 8 bytes; got 0`},
		{make([]byte, 4), tensor.Half, []int64{-1}, `input "x": the shape [-1] is not possible`},
		{make([]byte, 4), tensor.Half, []int64{1 << 40, 1 << 40}, `input "x": the shape [1099511627776,1099511627776] is not possible`},
		{make([]byte, 8), tensor.DType(8), []int64{1}, `input "x": complex64 is not served`},
		{packed("a"), tensor.String, []int64{2}, `input "x": 2 strings in shape [2] take at least 8 bytes; got 5`},
		{packed("abcdef"), tensor.String, []int64{2}, `input "x": 2 strings in shape [2]; the data ends at string 1, byte 10`},
		{packed("a", "b", "c"), tensor.String, []int64{2}, `input "x": 5 bytes are left after the 2 strings of shape [2]`},
		{[]byte{255, 255, 255, 255, 'a'}, tensor.String, []int64{1}, `input "x": string 0 at byte 0 says that it has 4294967295 bytes; 1 follow`},
		{packed("a"), tensor.String, []int64{1 << 30}, `input "x": 1073741824 strings in shape [1073741824] take at least 4294967296 bytes; got 5`},
	} {
		for name, way := range ways {
			request := model.NewRequest(1)
			err := way(c.raw, request, pool, c.dtype, c.dims...)
			request.Release()
			if err == nil || err.Error() != c.says {
				t.Errorf("%s: got  %v\nwant %s", name, err, c.says)
			}
			if pool.Live() != 0 {
				t.Fatalf("%s: %d slabs leaked", name, pool.Live())
			}
		}
	}
}

func TestABodyThatEndsEarlyOrFailsIsRefused(t *testing.T) {
	pool := tensor.NewPool()
	defer pool.Drain()
	broken := errors.New("the line broke")
	for _, c := range []struct {
		dtype tensor.DType
		rest  error
		says  string
	}{
		{tensor.Float32, io.EOF, `input "x": the data ended after 3 of 1000000 bytes`},
		{tensor.String, io.EOF, `input "x": the data ended after 3 of 1000000 bytes`},
		{tensor.Float32, broken, "the line broke"},
		{tensor.String, broken, "the line broke"},
	} {
		request := model.NewRequest(1)
		reader := io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(c.rest))
		err := Read(reader, 1000000, request, 0, "x", pool, c.dtype, 250000)
		request.Release()
		if err == nil || err.Error() != c.says {
			t.Errorf("%v: got %v, want %s", c.dtype, err, c.says)
		}
	}
	if pool.Live() != 0 {
		t.Errorf("%d slabs leaked", pool.Live())
	}
}

func TestBoolsAreZeroOrOne(t *testing.T) {
	pool := tensor.NewPool()
	defer pool.Drain()
	for name, way := range ways {
		request := model.NewRequest(1)
		if err := way([]byte{0, 1, 2, 255}, request, pool, tensor.Bool, 4); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(request.In[0].Bytes()); got != "[0 1 1 1]" {
			t.Errorf("%s: %s", name, got)
		}
		request.Release()
	}
}

// FuzzRead: whatever the bytes, type and shape: no panic, no leak; what is accepted comes back.
func FuzzRead(f *testing.F) {
	f.Add([]byte{0, 0, 128, 63}, byte(1), int64(1), int64(1))
	f.Add(packed("a", "bc"), byte(7), int64(2), int64(1))
	f.Add([]byte{255, 255, 255, 255}, byte(7), int64(1), int64(1))
	f.Add([]byte{}, byte(7), int64(0), int64(1<<40))
	f.Add([]byte{1}, byte(10), int64(-1), int64(-1))
	pool := tensor.NewPool()
	f.Fuzz(func(t *testing.T, raw []byte, dtype byte, a, b int64) {
		for name, way := range ways {
			request := model.NewRequest(1)
			err := way(raw, request, pool, tensor.DType(dtype), a, b)
			if err == nil && tensor.DType(dtype) != tensor.Bool && !bytes.Equal(Append(nil, &request.In[0]), raw) {
				t.Errorf("%s: %q came back as something else", name, raw)
			}
			if err != nil && status.From(err).Code == status.Internal {
				t.Errorf("%s: an unforeseen error: %v", name, err)
			}
			request.Release()
			if pool.Live() != 0 {
				t.Fatalf("%s: %d slabs leaked by %q", name, pool.Live(), raw)
			}
		}
	})
}

func BenchmarkRead(b *testing.B) {
	raw := make([]byte, 64*4)
	pool := tensor.NewPool()
	b.ReportAllocs()
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		request := model.NewRequest(1)
		if err := Read(bytes.NewReader(raw), len(raw), request, 0, "x", pool, tensor.Float32, 1, 64); err != nil {
			b.Fatal(err)
		}
		request.Release()
	}
}
