package model

import (
	"strings"
	"testing"

	"sluicegate/go_infer/internal/tensor"
)

func TestAShapeFitsWhatTheSignatureLeavesOpen(t *testing.T) {
	open := TensorInfo{Dims: []int64{-1, 3}, Known: true}
	for _, c := range []struct {
		info TensorInfo
		dims []int64
		fits bool
	}{
		{open, []int64{1, 3}, true},
		{open, []int64{0, 3}, true},
		{open, []int64{1, 4}, false},
		{open, []int64{3}, false},
		{open, nil, false},
		{TensorInfo{}, []int64{7}, true},
		{TensorInfo{Known: true}, nil, true},
		{TensorInfo{Known: true}, []int64{1}, false},
	} {
		if got := c.info.Fits(c.dims); got != c.fits {
			t.Errorf("%v in %s: %v", c.dims, c.info.Shape(), got)
		}
	}
}

func TestRowsAreTheFirstDimensionOfEveryInput(t *testing.T) {
	info := func(alias string) TensorInfo {
		return TensorInfo{Alias: alias, Name: alias, Type: tensor.Float32, Dims: []int64{-1, 2}, Known: true}
	}
	s := &Signature{Inputs: []TensorInfo{info("a"), info("b")}, Outputs: []TensorInfo{info("c")}}
	for _, c := range []struct {
		a, b int64
		rows int
		text string
	}{
		{3, 3, 3, ""},
		{3, 2, 0, `inputs "a" and "b" have 3 and 2 rows`},
		{0, 0, 0, "no rows"},
	} {
		r := NewRequest(2)
		r.In[0].Dims, r.In[1].Dims = []int64{c.a, 2}, []int64{c.b, 2}
		err := r.CountRows(s)
		if c.text == "" && (err != nil || r.Rows != c.rows) || c.text != "" && (err == nil || !strings.Contains(err.Error(), c.text)) {
			t.Errorf("%d and %d rows: %d, %v", c.a, c.b, r.Rows, err)
		}
		r.Release()
	}
	fixed := &Signature{Inputs: []TensorInfo{{Known: true, Dims: []int64{5}}}}
	r := NewRequest(1)
	defer r.Release()
	r.In[0].Dims = []int64{5}
	if err := r.CountRows(fixed); err != nil || r.Rows != 1 {
		t.Errorf("a signature without rows: %d, %v", r.Rows, err)
	}
}
