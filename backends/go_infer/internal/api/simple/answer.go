package simple

import (
	"cmp"
	"slices"
	"strconv"

	"sluicegate/go_infer/internal/api"
	"sluicegate/go_infer/internal/jsontensor"
	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/tensor"
)

// scored is a label's position and its score.
type scored struct {
	label int
	score float32
}

// ranking is every label of the first row, best first.
func ranking(scores []float32, labels int) []scored {
	all := make([]scored, labels)
	for i := range all {
		all[i] = scored{i, scores[i]}
	}
	slices.SortStableFunc(all, func(a, b scored) int { return cmp.Compare(b.score, a.score) })
	return all
}

// best is the best label of each row.
func best(scores []float32, labels int) []scored {
	var all []scored
	for ; len(scores) >= labels; scores = scores[labels:] {
		top := scored{0, scores[0]}
		for i, score := range scores[:labels] {
			if score > top.score {
				top = scored{i, score}
			}
		}
		all = append(all, top)
	}
	return all
}

func answer(x *api.Exchange, m *model.Model, scores *tensor.Value, pick func([]float32, int) []scored) error {
	labels := m.Declared.Labels
	if scores.Type != tensor.Float32 || len(scores.Dims) != 2 || scores.Dims[1] != int64(len(labels)) {
		return status.Errorf(status.Internal, "output %q is %v %s, which does not fit the %d declared labels",
			m.Declared.Outputs.Scores, scores.Type, tensor.ShapeText(scores.Dims, true), len(labels))
	}
	text := append(x.Answer, `{"model":`...)
	text = jsontensor.AppendString(text, m.Name)
	text = append(text, `,"version":`...)
	text = strconv.AppendInt(text, m.Version, 10)
	text = append(text, `,"predictions":[`...)
	for i, p := range pick(tensor.Cast[float32](scores.Bytes()), len(labels)) {
		if i > 0 {
			text = append(text, ',')
		}
		text = append(text, `{"label":`...)
		text = jsontensor.AppendString(text, labels[p.label])
		text = append(text, `,"score":`...)
		text = jsontensor.AppendFloat(text, float64(p.score), 32)
		text = append(text, '}')
	}
	x.Answer = append(text, "]}\n"...)
	return nil
}
