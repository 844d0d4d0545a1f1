package model

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/status"
)

// warm runs every bucket once, so that no client pays for TensorFlow's first look at a shape. What is made up may be refused as content
// (serialized messages with something required, assertions); then it is warmed no further, and that is no reason not to load it.
func (r *runner) warm() error {
	r.warmed = map[int]time.Duration{}
	for _, size := range r.limits.Buckets() {
		if r.late() {
			r.tell(fmt.Sprintf("signature %q is not warmed from %d rows on: %v", r.signature.Name, size, errLate))
			return nil
		}
		for number := range r.slots {
			err := r.warmOne(number, size)
			if err != nil && ofContent[status.From(err).Code] {
				r.tell(fmt.Sprintf("signature %q is not warmed from %d rows on: made-up rows are refused: %v", r.signature.Name, size, err))
				return nil
			}
			if errors.Is(err, errRows) { // nobody has tried that before
				r.part(err.Error())
				return r.warm()
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

// rewarm runs once more, in one slot, what has warmed the model: for what was given back to the system meanwhile. One row comes last: it
// is what most begin with.
func (m *Model) rewarm() error {
	if err := m.replay(m.Directory, true); err != nil {
		return err
	}
	for _, servable := range m.Signatures {
		if servable.runner == nil {
			continue
		}
		for _, size := range slices.Backward(slices.Sorted(maps.Keys(servable.runner.warmed))) {
			if err := servable.runner.warmOne(0, size); err != nil {
				return fmt.Errorf("signature %q: batch size %d, once more: %w", servable.Name, size, err)
			}
		}
	}
	return nil
}

func (r *runner) warmOne(number, size int) error {
	numbers := make([]int, size)
	for row := range numbers {
		numbers[row] = row % 4
	}
	request, err := r.content.make(r.signature, r.pool, numbers)
	if err != nil {
		return err
	}
	defer request.Release()
	return r.once(number, []batch.Part[*Request]{{Payload: request, Rows: size}}, !r.apart.Load())
}
