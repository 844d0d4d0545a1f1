package tfserving

import (
	"time"

	"sluicegate/go_infer/internal/api"
	"sluicegate/go_infer/internal/examples"
	"sluicegate/go_infer/internal/jsontensor"
	"sluicegate/go_infer/internal/metrics"
	"sluicegate/go_infer/internal/model"
)

// classify answers {"results": [[["label", score], ...], ...]}: for each example its classes.
func (h *Handler) classify(x *api.Exchange, target target) error {
	return h.onExamples(x, target, examples.ClassifyMethod, func(servable *model.Servable, serialized [][]byte) error {
		rows, err := examples.Classify(x.Context, servable, serialized, x.Class)
		if err != nil {
			return err
		}
		answerList(x, len(rows), func(text []byte, row int) []byte {
			text = append(text, '[')
			for i := range rows[row] {
				class := &rows[row][i]
				if i > 0 {
					text = append(text, ',')
				}
				text = append(text, '[')
				text = jsontensor.AppendString(text, class.Label)
				text = append(text, ',')
				text = jsontensor.AppendFloat(text, float64(class.Score), 32)
				text = append(text, ']')
			}
			return append(text, ']')
		})
		return nil
	})
}

// regress answers {"results": [value, ...]}: for each example its value.
func (h *Handler) regress(x *api.Exchange, target target) error {
	return h.onExamples(x, target, examples.RegressMethod, func(servable *model.Servable, serialized [][]byte) error {
		values, err := examples.Regress(x.Context, servable, serialized, x.Class)
		if err != nil {
			return err
		}
		answerList(x, len(values), func(text []byte, row int) []byte { return jsontensor.AppendFloat(text, float64(values[row]), 32) })
		return nil
	})
}

// counted is what a method is called where requests are counted.
var counted = map[string]metrics.API{examples.ClassifyMethod: metrics.ClassifyAPI, examples.RegressMethod: metrics.RegressAPI}

// onExamples reads the examples of a request, finds the signature, which must be of the method, and lets answer do the rest.
func (h *Handler) onExamples(x *api.Exchange, target target, method string, answer func(*model.Servable, [][]byte) error) (err error) {
	begun := time.Now()
	lease, unknown := h.Repository.Acquire(x.Context, target.model, target.wanted)
	if unknown == nil {
		defer lease.Release()
		defer func() { h.answered(counted[method], lease.Model.Name, begun, err) }()
		if err := lease.Model.Overloaded(x.Context, x.Class); err != nil {
			return err
		}
	}
	document, err := jsontensor.Scan(x.Body)
	if err != nil {
		return err
	}
	name, err := document.SignatureName()
	if err != nil {
		return err
	}
	serialized, err := document.ReadExamples()
	if err != nil {
		return err
	}
	if unknown != nil {
		return unknown
	}
	servable, err := examples.Signature(lease.Model, name, method)
	if err != nil {
		return err
	}
	return answer(servable, serialized)
}

// answerList writes {"results": [...]} of so many rows.
func answerList(x *api.Exchange, rows int, write func(text []byte, row int) []byte) {
	x.Answer = append(x.Answer, `{"results":[`...)
	for row := range rows {
		if row > 0 {
			x.Answer = append(x.Answer, ',')
		}
		x.Answer = write(x.Answer, row)
	}
	x.Answer = append(x.Answer, "]}\n"...)
}
