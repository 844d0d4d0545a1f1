package simple

import (
	"cmp"
	"maps"
	"slices"
	"strconv"

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

// ranking is the top labels of one row, best first.
func ranking(scores []float32, top int) []scored {
	all := make([]scored, len(scores))
	for i := range all {
		all[i] = scored{i, scores[i]}
	}
	slices.SortStableFunc(all, func(a, b scored) int { return cmp.Compare(b.score, a.score) })
	return all[:min(top, len(all))]
}

// answer is what a model's declaration says of its outputs, ready to be told.
type answer struct {
	model    *model.Model
	servable *model.Servable
	scores   int // position of the output with the scores, -1 if there is none
	top      int // labels that are told of each row
	more     []more
}

// more is an output beside the scores.
type more struct {
	name   string
	output int
	labels []string
}

// newAnswer refuses a model that declares nothing to tell. top is the query's, empty for all labels.
func newAnswer(m *model.Model, top string) (*answer, error) {
	a := &answer{model: m, scores: -1, top: 1 << 30}
	if top != "" {
		n, err := strconv.Atoi(top)
		if err != nil || n < 1 {
			return nil, status.Errorf(status.InvalidArgument, "top=%q is not a number of labels; it must be 1 or more", top)
		}
		a.top = n
	}
	declared := m.Declared
	labelled := declared != nil && len(declared.Labels) > 0 && declared.Outputs.Scores != ""
	if !labelled && (declared == nil || len(declared.Outputs.More) == 0) {
		return nil, status.Errorf(status.FailedPrecondition,
			"model %s version %d declares no labels in %s; use /v1/models/%s:predict", m.Name, m.Version, model.DeclarationFile, m.Name)
	}
	servable, err := m.Signature(declared.Signature)
	if err != nil {
		return nil, err
	}
	a.servable = servable
	if labelled {
		a.scores = servable.Output(declared.Outputs.Scores)
	}
	for _, name := range slices.Sorted(maps.Keys(declared.Outputs.More)) {
		output := declared.Outputs.More[name]
		a.more = append(a.more, more{name, servable.Output(output.Tensor), output.Labels})
	}
	return a, nil
}

// append writes {"model", "version", "predictions", "outputs"} of a request's rows; as lists with one entry for each row if list is true.
func (a *answer) append(text []byte, request *model.Request, rows int, list bool) ([]byte, error) {
	text = a.head(text)
	each := func(name string, write func(text []byte, row int) ([]byte, error)) (err error) {
		text = append(text, name...)
		if list {
			text = append(text, '[')
		}
		for row := range rows {
			if row > 0 {
				text = append(text, ',')
			}
			if text, err = write(text, row); err != nil {
				return err
			}
		}
		if list {
			text = append(text, ']')
		}
		return nil
	}
	var err error
	if a.scores >= 0 {
		err = each(`,"predictions":`, func(text []byte, row int) ([]byte, error) {
			return a.ranked(text, &request.Out[a.scores], row, rows, a.model.Declared.Labels)
		})
	}
	if err == nil && len(a.more) > 0 {
		err = each(`,"outputs":`, func(text []byte, row int) ([]byte, error) { return a.others(text, request, row, rows) })
	}
	return append(text, "}\n"...), err
}

func (a *answer) head(text []byte) []byte {
	text = append(text, `{"model":`...)
	text = jsontensor.AppendString(text, a.model.Name)
	text = append(text, `,"version":`...)
	return strconv.AppendInt(text, a.model.Version, 10)
}

// others writes the outputs beside the scores of one row.
func (a *answer) others(text []byte, request *model.Request, row, rows int) (_ []byte, err error) {
	for i, other := range a.more {
		text = append(text, "{,"[min(i, 1)])
		text = jsontensor.AppendString(text, other.name)
		text = append(text, ':')
		value := &request.Out[other.output]
		switch {
		case len(other.labels) > 0:
			if text, err = a.ranked(text, value, row, rows, other.labels); err != nil {
				return text, err
			}
		case len(value.Dims) == 0 || value.Dims[0] != int64(rows):
			return text, status.Errorf(status.Internal, "output %q is %s, which has not one row for each of %d pictures",
				other.name, tensor.ShapeText(value.Dims, true), rows)
		default:
			text = jsontensor.AppendRow(text, a.servable.Signature, request, other.output, row)
		}
	}
	return append(text, '}'), nil
}

// ranked writes the best labels of one row.
func (a *answer) ranked(text []byte, scores *tensor.Value, row, rows int, labels []string) ([]byte, error) {
	numbers, err := fitting(scores, rows, labels)
	if err != nil {
		return text, err
	}
	text = append(text, '[')
	for i, p := range ranking(numbers[row*len(labels):(row+1)*len(labels)], a.top) {
		if i > 0 {
			text = append(text, ',')
		}
		text = p.append(text, labels)
	}
	return append(text, ']'), nil
}

// best writes {"model", "version", "predictions"} with the best label of each row.
func (a *answer) best(text []byte, request *model.Request) ([]byte, error) {
	labels := a.model.Declared.Labels
	if a.scores < 0 {
		return text, status.Errorf(status.FailedPrecondition, "model %s version %d declares no labels in %s; use /v1/models/%s:predict",
			a.model.Name, a.model.Version, model.DeclarationFile, a.model.Name)
	}
	scores := &request.Out[a.scores]
	rows := 0
	if len(scores.Dims) > 0 {
		rows = int(scores.Dims[0])
	}
	numbers, err := fitting(scores, rows, labels)
	if err != nil {
		return text, err
	}
	text = append(a.head(text), `,"predictions":[`...)
	for row := range rows {
		if row > 0 {
			text = append(text, ',')
		}
		scores := numbers[row*len(labels) : (row+1)*len(labels)]
		top := scored{0, scores[0]}
		for i, score := range scores {
			if score > top.score {
				top = scored{i, score}
			}
		}
		text = top.append(text, labels)
	}
	return append(text, "]}\n"...), nil
}

// fitting is the scores of all rows; the signature may leave open what the model then gives.
func fitting(scores *tensor.Value, rows int, labels []string) ([]float32, error) {
	if scores.Type != tensor.Float32 || len(scores.Dims) != 2 || scores.Dims[0] != int64(rows) || scores.Dims[1] != int64(len(labels)) {
		return nil, status.Errorf(status.Internal, "the scores are %v %s, which does not fit %d rows and %d declared labels",
			scores.Type, tensor.ShapeText(scores.Dims, true), rows, len(labels))
	}
	return tensor.Cast[float32](scores.Bytes()), nil
}

func (p scored) append(text []byte, labels []string) []byte {
	text = append(text, `{"label":`...)
	text = jsontensor.AppendString(text, labels[p.label])
	text = append(text, `,"score":`...)
	text = jsontensor.AppendFloat(text, float64(p.score), 32)
	return append(text, '}')
}
