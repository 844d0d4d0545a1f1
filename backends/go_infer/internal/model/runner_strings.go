package model

import (
	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/tensor"
)

// The runner's work for tensors of strings, which cross to TensorFlow packed (tensor.Packer).

// feedStrings packs the strings of all parts, and the last row so many times again.
func (r *runner) feedStrings(slot *slot, input int, parts []batch.Part[*Request], padding int) error {
	of := func(part *batch.Part[*Request]) (strings [][]byte, perRow int) {
		value := &part.Payload.In[input]
		if !slot.rows {
			return value.Strings, 0
		}
		perRow = len(value.Strings) / int(value.Dims[0])
		return value.Strings[part.Start*perRow : (part.Start+part.Rows)*perRow], perRow
	}
	n, content := 0, 0
	var last [][]byte
	for i := range parts {
		strings, perRow := of(&parts[i])
		n += len(strings)
		content += tensor.Content(strings)
		last = strings[len(strings)-perRow:]
	}
	n += padding * len(last)
	content += padding * tensor.Content(last)
	size := tensor.PackedSize(n, content)
	packed, err := r.gather(slot, input, size)
	if err != nil {
		return err
	}
	packer := tensor.NewPacker(packed, n)
	for i := range parts {
		strings, _ := of(&parts[i])
		packer.Add(strings)
	}
	for range padding {
		packer.Add(last)
	}
	return slot.call.SetInput(input, tensor.String, slot.dims, slot.gather[input].Pointer(), size)
}

// unpack copies a part's strings out of those of the whole batch.
func (r *runner) unpack(slot *slot, info *TensorInfo, value *tensor.Value, fresh bool, packed []byte, part *batch.Part[*Request], start, bucket int) error {
	if fresh {
		value.Strings = make([][]byte, tensor.Elements(value.Dims))
	}
	n := len(value.Strings)
	if !slot.rows {
		tensor.Unpack(value.Strings, packed, 0, n, n)
		return nil
	}
	perRow := n / int(value.Dims[0])
	all := perRow * bucket
	if len(packed) < tensor.PackedSize(all, 0) || len(packed) != tensor.PackedSize(all, tensor.PackedContent(packed, all)) {
		return shapeChanged(info)
	}
	tensor.Unpack(value.Strings[part.Start*perRow:], packed, start*perRow, (start+part.Rows)*perRow, all)
	return nil
}
