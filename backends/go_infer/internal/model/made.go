package model

import (
	"math/rand/v2"
	"strconv"
	"strings"

	"sluicegate/go_infer/internal/tensor"
)

// content is what made-up rows hold. No one kind suits every model: some refuse what is not positive, some words that they do not know.
type content int

const (
	signed   content = iota // numbers of both signs, indices below 4, words
	positive                // numbers above zero, indices below 2, strings of digits
	nothing                 // zeros and empty strings
)

// make makes rows up. They differ in size, too, so that outputs that are as wide as their content says differ as well. Dimensions that
// are open, beside the rows, are 1.
func (c content) make(s *Signature, pool *tensor.Pool, rows []int) (*Request, error) {
	request := NewRequest(len(s.Inputs))
	request.Rows = len(rows)
	for i := range s.Inputs {
		if err := c.fill(&s.Inputs[i], i, request, pool, rows, s.Rowwise()); err != nil {
			request.Release()
			return nil, err
		}
	}
	return request, nil
}

func (c content) fill(info *TensorInfo, i int, request *Request, pool *tensor.Pool, rows []int, rowwise bool) error {
	dims := make([]int64, len(info.Dims))
	for d, dim := range info.Dims {
		dims[d] = dim
		if dim < 0 {
			dims[d] = 1
		}
	}
	perRow := int(tensor.Elements(dims))
	if rowwise {
		dims[0] = int64(len(rows))
	} else {
		rows = rows[:1]
	}
	if info.Type == tensor.String {
		var all [][]byte
		for _, row := range rows {
			for range perRow {
				all = append(all, c.text(row))
			}
		}
		return request.SetStrings(i, all, dims...)
	}
	value, err := request.SetInput(i, pool, info.Type, dims...)
	if err != nil {
		return err
	}
	memory := value.Bytes()
	clear(memory)
	if c == nothing {
		return nil
	}
	size := info.Type.Size()
	for at, row := range rows {
		random := rand.New(rand.NewPCG(uint64(row), uint64(i)))
		for element := range perRow {
			c.number(info.Type, random.Float64(), row, memory[(at*perRow+element)*size:])
		}
	}
	return nil
}

// number writes one number of a row; u is in [0,1).
func (c content) number(dtype tensor.DType, u float64, row int, to []byte) {
	real, whole := (2*u-1)*float64(row+1), byte(4*u)
	if c == positive {
		real, whole = (u+.05)*float64(row+1), byte(2*u)
	}
	switch dtype {
	case tensor.Float32:
		tensor.Cast[float32](to[:4])[0] = float32(real)
	case tensor.Float64:
		tensor.Cast[float64](to[:8])[0] = real
	case tensor.Half:
		tensor.Cast[uint16](to[:2])[0] = tensor.HalfBits(real)
	case tensor.BFloat16:
		tensor.Cast[uint16](to[:2])[0] = tensor.BFloat16Bits(real)
	case tensor.Bool:
		to[0] = whole & 1
	default: // little-endian, and small enough for the lowest byte
		to[0] = whole
	}
}

func (c content) text(row int) []byte {
	switch c {
	case signed:
		return []byte(strings.Repeat(" word", row+1)[1:] + strconv.Itoa(row))
	case positive:
		return []byte(strconv.Itoa(row + 1))
	}
	return nil
}
