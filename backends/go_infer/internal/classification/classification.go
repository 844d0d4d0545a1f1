// Package classification makes of scores the classification extension's answer, for the Open Inference Protocol over HTTP and over gRPC.
// Source: triton-inference-server/server docs/protocol/extension_classification.md.
package classification

import (
	"cmp"
	"slices"
	"strconv"

	"sluicegate/go_infer/internal/jsontensor"
	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/tensor"
)

// Best makes of an output's values, for every row, its best classes: BYTES "score:index", and ":label" if the model declares labels of
// that output. Equal scores keep the order of their indices. False if values are of a type that has no order.
func Best(servable *model.Servable, output int, values tensor.Value, classes int) (best tensor.Value, ordered bool) {
	sort, ordered := sorts[values.Type]
	if !ordered {
		return values, false
	}
	rows := 1
	best = tensor.Value{Type: tensor.String}
	if servable.Rowwise() && len(values.Dims) > 0 {
		rows = int(values.Dims[0])
		best.Dims = append(best.Dims, values.Dims[0])
	}
	perRow := int(tensor.Elements(values.Dims)) / max(rows, 1)
	classes = min(classes, perRow)
	best.Dims = append(best.Dims, int64(classes))
	var labels []string
	if declared := servable.Model.Declared; declared != nil && declared.Outputs.Scores == servable.Outputs[output].Alias {
		labels = declared.Labels
	}
	order := make([]int, perRow)
	for row := range rows {
		for i := range order {
			order[i] = row*perRow + i
		}
		sort(&values, order)
		for _, element := range order[:classes] {
			index := element - row*perRow
			text := jsontensor.AppendElements(nil, &values, element, element+1)
			text = strconv.AppendInt(append(text, ':'), int64(index), 10)
			if index < len(labels) {
				text = append(append(text, ':'), labels[index]...)
			}
			best.Strings = append(best.Strings, text)
		}
	}
	return best, true
}

// sorts has, for every type that has an order, what sorts positions of a tensor's elements, the largest element first.
var sorts = map[tensor.DType]func(values *tensor.Value, order []int){
	tensor.Float32: descending[float32], tensor.Float64: descending[float64],
	tensor.Int8: descending[int8], tensor.Int16: descending[int16], tensor.Int32: descending[int32], tensor.Int64: descending[int64],
	tensor.Uint8: descending[uint8], tensor.Uint16: descending[uint16], tensor.Uint32: descending[uint32], tensor.Uint64: descending[uint64],
}

// descending compares by the tensor's own type. NaN is less than every number.
func descending[T cmp.Ordered](values *tensor.Value, order []int) {
	view := tensor.Cast[T](values.Bytes())
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(view[b], view[a]) })
}
