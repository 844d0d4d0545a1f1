package tfserving

import "sluicegate/go_infer/internal/repository"

// settle reads version 0 as "none in particular", unless the model has a version 0: so ovmsclient (OpenVINO Model Server's) asks for
// the default version, on these paths. TF-Serving itself would answer that there is no such version.
func (h *Handler) settle(t *target) {
	if !t.wanted.Exact || t.wanted.Version != 0 {
		return
	}
	for _, version := range h.Repository.Versions(t.model) {
		if version.Number == 0 {
			return
		}
	}
	t.wanted = repository.Wanted{}
}
