package session_test

import (
	"bytes"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"sluicegate/go_infer/internal/session"
	"sluicegate/go_infer/internal/tensor"
	"sluicegate/go_infer/internal/testmodels"
)

// rows is how many digits each Run here is given; an answer is a label (int64) and 10 probabilities (float32) for each.
const rows = 4

// prepared is the dense digit model as one call, with its input set to real digits.
func prepared(t *testing.T) (*session.Call, *tensor.Pool, []int64) {
	t.Helper()
	s, _, err := session.Load(filepath.Join(testmodels.Directory(t), "digits/1"), 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	call, err := s.NewCall([]string{"serving_default_image:0"}, []string{"StatefulPartitionedCall:0", "StatefulPartitionedCall:1"})
	if err != nil {
		t.Fatal(err)
	}
	pool := tensor.NewPool()
	input := slab(t, pool, rows*64*4)
	t.Cleanup(func() {
		input.Free()
		call.Close()
		s.Close()
		if session.Live() != 0 || pool.Live() != 0 {
			t.Errorf("leaked %d tensors and %d slabs", session.Live(), pool.Live())
		}
		pool.Drain()
	})
	heldout := testmodels.Digits(t)
	for i := range rows {
		copy(tensor.View[float32](input, rows*64)[i*64:], heldout.Instances[i])
	}
	set(t, call, input.Pointer(), 64)
	return call, pool, heldout.Labels[:rows]
}

func slab(t *testing.T, pool *tensor.Pool, size int) *tensor.Slab {
	t.Helper()
	s, err := pool.Get(size)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func set(t *testing.T, call *session.Call, memory unsafe.Pointer, width int64) {
	t.Helper()
	if err := call.SetInput(0, tensor.Float32, []int64{rows, width}, memory, rows*int(width)*4); err != nil {
		t.Fatal(err)
	}
}

func TestARunIsOneCCallWhereOutputsFitAndTwoWhereNot(t *testing.T) {
	const labels, probabilities = rows * 8, rows * 10 * 4
	for _, c := range []struct {
		name   string
		rooms  [2]int // -1: no place
		landed [2]bool
		ccalls int64
		held   int64
	}{
		{"they fit exactly", [2]int{labels, probabilities}, [2]bool{true, true}, 1, 0},
		{"there is room to spare", [2]int{4096, 4096}, [2]bool{true, true}, 1, 0},
		{"one byte is missing", [2]int{labels, probabilities - 1}, [2]bool{true, false}, 2, 1},
		{"one has no place", [2]int{-1, probabilities}, [2]bool{false, true}, 2, 1},
		{"none has a place", [2]int{-1, -1}, [2]bool{false, false}, 2, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			call, pool, want := prepared(t)
			for i, room := range c.rooms {
				if room < 0 {
					call.SetOutput(i, nil, 0)
					continue
				}
				place := slab(t, pool, 4096)
				defer place.Free()
				guard, untouched := place.Bytes(4096)[room:], bytes.Repeat([]byte{0xa5}, 4096-room)
				copy(guard, untouched)
				defer func() {
					if !bytes.Equal(guard, untouched) {
						t.Errorf("output %d was written past its room", i)
					}
				}()
				call.SetOutput(i, place.Pointer(), room)
			}
			if err := call.Run(); err != nil { // the first Run of a shape makes TensorFlow's plan
				t.Fatal(err)
			}
			call.Release()
			before := runtime.NumCgoCall()
			if err := call.Run(); err != nil {
				t.Fatal(err)
			}
			made := runtime.NumCgoCall() - before
			for i, landed := range c.landed {
				if call.Landed(i) != landed {
					t.Errorf("output %d landed: %v, want %v", i, !landed, landed)
				}
			}
			if session.Live() != c.held {
				t.Errorf("%d tensors are held, want %d", session.Live(), c.held)
			}
			dtype, rank, bytes := call.Output(0)
			if dtype != tensor.Int64 || rank != 1 || call.Dim(0, 0) != rows || len(bytes) != labels {
				t.Fatalf("output 0 is %v of rank %d, %d bytes", dtype, rank, len(bytes))
			}
			for i, label := range tensor.Cast[int64](bytes) {
				if label != want[i] {
					t.Errorf("digit %d: label %d, want %d", i, label, want[i])
				}
			}
			before = runtime.NumCgoCall()
			call.Release()
			if made += runtime.NumCgoCall() - before; made != c.ccalls {
				t.Errorf("%d C calls, want %d", made, c.ccalls)
			}
			if session.Live() != 0 {
				t.Errorf("%d tensors after Release", session.Live())
			}
		})
	}
}

func TestAFailedRunLeavesNothingAndTheNextOneIsWhole(t *testing.T) {
	call, pool, want := prepared(t)
	wrong := slab(t, pool, rows*63*4)
	defer wrong.Free()
	clear(wrong.Bytes(rows * 63 * 4))
	right := slab(t, pool, rows*64*4)
	defer right.Free()
	heldout := testmodels.Digits(t)
	for i := range rows {
		copy(tensor.View[float32](right, rows*64)[i*64:], heldout.Instances[i])
	}
	for range 3 {
		set(t, call, wrong.Pointer(), 63)
		if err := call.Run(); err == nil || !strings.Contains(err.Error(), "63") {
			t.Fatalf("63 numbers for 64: %v", err)
		}
		if session.Live() != 0 {
			t.Fatalf("%d tensors after a failed Run", session.Live())
		}
		set(t, call, right.Pointer(), 64)
		if err := call.Run(); err != nil {
			t.Fatal(err)
		}
		if _, _, bytes := call.Output(0); tensor.Cast[int64](bytes)[0] != want[0] {
			t.Error("wrong answer after a failed Run")
		}
		call.Release()
	}
}

func TestTooManyDimensionsAreRefused(t *testing.T) {
	call, pool, _ := prepared(t)
	memory := slab(t, pool, 4)
	defer memory.Free()
	err := call.SetInput(0, tensor.Float32, make([]int64, session.MaxRank+1), memory.Pointer(), 4)
	if err == nil || err.Error() != "a tensor of 9 dimensions; at most 8 are served" {
		t.Errorf("got %v", err)
	}
	err = call.SetInput(0, tensor.Float32, []int64{1 << 62, 1 << 62, 0}, memory.Pointer(), 0)
	if err == nil || err.Error() != "a tensor of shape [4611686018427387904,4611686018427387904,0] is not possible" {
		t.Errorf("%v", err)
	}
}
