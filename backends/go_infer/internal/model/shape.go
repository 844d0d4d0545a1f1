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

// CountRows sets Rows from the inputs, whose shapes must fit the signature: the first dimension, in which all must agree. If the
// signature does not batch they need not, and what has no rows counts as one.
func (r *Request) CountRows(s *Signature) error {
	r.Rows = 1
	for i := range r.In {
		if dims := r.In[i].Dims; len(dims) > 0 {
			if err := s.CheckRows(dims[0]); err != nil {
				return err
			}
		}
	}
	if !s.Rowwise() {
		return nil
	}
	n := int(r.In[0].Dims[0])
	for i := range r.In {
		if other := int(r.In[i].Dims[0]); other != n {
			if !s.Batchable() {
				return nil
			}
			return status.Errorf(status.InvalidArgument, "inputs %q and %q have %d and %d rows; they must have the same",
				s.Inputs[0].Alias, s.Inputs[i].Alias, n, other)
		}
	}
	if n == 0 && s.Batchable() {
		return status.Errorf(status.InvalidArgument, "the request has no rows; input %q wants shape %s", s.Inputs[0].Alias, s.Inputs[0].Shape())
	}
	r.Rows = max(n, 1)
	return nil
}
