package model

import (
	"bytes"
	"errors"
	"slices"

	"sluicegate/go_infer/internal/savedmodel"
	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/tensor"
)

// rows are content to run before a version is served: made up (content), or those of requests that were recorded (recorded).
type rows interface {
	// make makes a request of the rows of these numbers: equal numbers are equal rows, and the same in every request.
	make(s *Signature, pool *tensor.Pool, numbers []int) (*Request, error)
}

// mostRecorded is how many different rows of a signature's recorded requests are kept.
const mostRecorded = 4

// recorded are different rows of the requests that a version brings along to be warmed with: what clients really ask.
type recorded struct {
	rows []row
}

// row is one row of every input.
type row []cell

type cell struct {
	dims    []int64 // but the first
	bytes   []byte
	strings [][]byte
}

var errEnough = errors.New("enough rows")

// recorded reads rows of the requests that were recorded for warming, by signature. What cannot be read here is told when all of them are
// run (replay), and so is why.
func (m *Model) recorded(directory string) map[string]*recorded {
	found := map[string]*recorded{}
	_ = savedmodel.Warmups(directory, func(w savedmodel.Warmup) error {
		s, err := m.Signature(w.Signature)
		if err != nil || !s.Rowwise() {
			return nil //nolint:nilerr // replay tells
		}
		request, err := s.warmup(w, m.pool)
		if err != nil {
			return nil //nolint:nilerr // replay tells
		}
		defer request.Release()
		if found[s.Name] == nil {
			found[s.Name] = &recorded{}
		}
		found[s.Name].take(request)
		for name, servable := range m.Signatures {
			if servable.Refused == "" && servable.Rowwise() && !found[name].enough() {
				return nil
			}
		}
		return errEnough
	})
	return found
}

func (r *recorded) enough() bool { return r != nil && len(r.rows) == mostRecorded }

// take keeps a request's rows that are not known yet and fit beside those that are.
func (r *recorded) take(request *Request) {
	for i := 0; i < request.Rows && !r.enough(); i++ {
		next := make(row, len(request.In))
		for input := range request.In {
			next[input] = cellOf(&request.In[input], i)
		}
		fits := len(r.rows) == 0 || slices.EqualFunc(r.rows[0], next, func(a, b cell) bool { return slices.Equal(a.dims, b.dims) })
		if fits && !slices.ContainsFunc(r.rows, next.same) {
			r.rows = append(r.rows, next)
		}
	}
}

// cellOf copies row i of an input.
func cellOf(value *tensor.Value, i int) cell {
	c := cell{dims: slices.Clone(value.Dims[1:])}
	n := int(tensor.Elements(c.dims))
	if value.Type == tensor.String {
		for _, text := range value.Strings[i*n : (i+1)*n] {
			c.strings = append(c.strings, bytes.Clone(text))
		}
		return c
	}
	size := n * value.Type.Size()
	c.bytes = bytes.Clone(value.Bytes()[i*size : (i+1)*size])
	return c
}

func (r row) same(other row) bool {
	return slices.EqualFunc(r, other, func(a, b cell) bool {
		return bytes.Equal(a.bytes, b.bytes) && slices.EqualFunc(a.strings, b.strings, bytes.Equal)
	})
}

func (r *recorded) make(s *Signature, pool *tensor.Pool, numbers []int) (*Request, error) {
	request := NewRequest(len(s.Inputs))
	request.Rows = len(numbers)
	for i := range s.Inputs {
		if err := r.fill(&s.Inputs[i], i, request, pool, numbers); err != nil {
			request.Release()
			return nil, err
		}
	}
	return request, nil
}

func (r *recorded) fill(info *TensorInfo, i int, request *Request, pool *tensor.Pool, numbers []int) error {
	dims := append([]int64{int64(len(numbers))}, r.rows[0][i].dims...)
	if info.Type == tensor.String {
		var all [][]byte
		for _, number := range numbers {
			all = append(all, r.rows[number%len(r.rows)][i].strings...)
		}
		return request.SetStrings(i, all, dims...)
	}
	value, err := request.SetInput(i, pool, info.Type, dims...)
	if err != nil {
		return err
	}
	memory := value.Bytes()
	for _, number := range numbers {
		memory = memory[copy(memory, r.rows[number%len(r.rows)][i].bytes):]
	}
	return nil
}

// warmup makes a request of a recorded one.
func (s *Signature) warmup(w savedmodel.Warmup, pool *tensor.Pool) (*Request, error) {
	request := NewRequest(len(s.Inputs))
	if err := s.readWarmup(w, request, pool); err != nil {
		request.Release()
		return nil, err
	}
	return request, nil
}

func (s *Signature) readWarmup(w savedmodel.Warmup, request *Request, pool *tensor.Pool) (err error) {
	for i := range s.Inputs {
		info := &s.Inputs[i]
		if w.Inputs == nil {
			if len(s.Inputs) != 1 || info.Type != tensor.String {
				return status.Errorf(status.InvalidArgument, "signature %q does not take examples", s.Name)
			}
			err = request.SetStrings(i, w.Examples, int64(len(w.Examples)))
		} else if proto, given := w.Inputs[info.Alias]; given {
			err = readTensor(proto, request, i, info, pool)
		} else {
			err = status.Errorf(status.InvalidArgument, "input %q of signature %q is missing", info.Alias, s.Name)
		}
		if err != nil {
			return err
		}
		dims := request.In[i].Dims
		switch {
		case !s.Batchable():
			request.Rows = 1
		case len(dims) == 0 || dims[0] < 1 || i > 0 && dims[0] != int64(request.Rows):
			return status.Errorf(status.InvalidArgument, "input %q has the shape %s: not one row per example", info.Alias, tensor.ShapeText(dims, true))
		default:
			request.Rows = int(dims[0])
		}
	}
	return nil
}
