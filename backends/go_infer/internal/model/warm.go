package model

import (
	"fmt"
	"time"

	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/tensor"
)

// warm runs every bucket once, so that no client pays for TensorFlow's first look at a shape. Made-up strings are empty; a model that
// refuses those as content (serialized messages with something required) is warmed no further, and that is no reason not to load it.
func (r *runner) warm() error {
	sizes := []int{1}
	if r.batchable {
		sizes = r.limits.Buckets()
	}
	r.warmed = map[int]time.Duration{}
	for _, size := range sizes {
		for number := range r.slots {
			err := r.warmOne(number, size)
			if err != nil && r.signature.takesStrings() && ofContent[status.From(err).Code] {
				return nil
			}
			if err != nil {
				return fmt.Errorf("warming batch size %d: %w", size, err)
			}
		}
		began := time.Now()
		if r.warmOne(0, size) == nil { // the second time is what it takes
			r.warmed[size] = time.Since(began)
		}
	}
	return nil
}

func (r *runner) warmOne(number, size int) error {
	request := NewRequest(len(r.signature.Inputs))
	defer request.Release()
	request.Rows = size
	for i := range r.signature.Inputs {
		info := &r.signature.Inputs[i]
		dims := make([]int64, len(info.Dims))
		for d, dim := range info.Dims {
			dims[d] = max(dim, 1)
		}
		if r.batchable {
			dims[0] = int64(size)
		}
		if info.Type == tensor.String {
			if err := request.SetStrings(i, make([][]byte, tensor.Elements(dims)), dims...); err != nil {
				return err
			}
			continue
		}
		value, err := request.SetInput(i, r.pool, info.Type, dims...)
		if err != nil {
			return err
		}
		clear(value.Bytes())
	}
	return r.once(number, []batch.Part[*Request]{{Payload: request, Rows: size}})
}
