package model

import "sluicegate/go_infer/internal/status"

// Fits says whether a tensor of that shape may be this input or output.
func (t *TensorInfo) Fits(dims []int64) bool {
	if !t.Known {
		return true
	}
	if len(dims) != len(t.Dims) {
		return false
	}
	for d, dim := range t.Dims {
		if dim >= 0 && dims[d] != dim {
			return false
		}
	}
	return true
}

// CountRows sets Rows from the inputs, whose shapes must fit the signature: the first dimension, in which all must agree, or 1 if the
// signature does not batch.
func (r *Request) CountRows(s *Signature) error {
	r.Rows = 1
	if !s.Batchable() {
		return nil
	}
	for i := range r.In {
		n := int(r.In[i].Dims[0])
		if i > 0 && n != r.Rows {
			return status.Errorf(status.InvalidArgument, "inputs %q and %q have %d and %d rows; they must have the same",
				s.Inputs[0].Alias, s.Inputs[i].Alias, r.Rows, n)
		}
		r.Rows = n
	}
	if r.Rows == 0 {
		return status.Errorf(status.InvalidArgument, "the request has no rows; input %q wants shape %s", s.Inputs[0].Alias, s.Inputs[0].Shape())
	}
	return nil
}
