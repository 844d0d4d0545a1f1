package oip

import (
	"cmp"
	"slices"
	"strconv"

	"sluicegate/go_infer/internal/jsontensor"
	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/tensor"
)

// classify makes of an output, for every row, its best classes: BYTES "score:index", and ":label" if the model declares labels.
// Equal scores keep the order of their indices. Source: docs/protocol/extension_classification.md.
func classify(servable *model.Servable, out *output) error {
	values := out.value
	alias := servable.Outputs[out.at].Alias
	sort, known := sorts[values.Type]
	if !known {
		return refuse("output '%s' is %s, which has no best classes", alias, datatypes[values.Type])
	}
	rows := 1
	out.value = tensor.Value{Type: tensor.String}
	if servable.Rowwise() && len(values.Dims) > 0 {
		rows = int(values.Dims[0])
		out.value.Dims = append(out.value.Dims, values.Dims[0])
	}
	perRow := int(tensor.Elements(values.Dims)) / max(rows, 1)
	classes := min(out.classes, perRow)
	out.value.Dims = append(out.value.Dims, int64(classes))
	var labels []string
	if declared := servable.Model.Declared; declared != nil && declared.Outputs.Scores == alias {
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
			out.value.Strings = append(out.value.Strings, text)
		}
	}
	return nil
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
