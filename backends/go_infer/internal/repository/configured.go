package repository

import "sluicegate/go_infer/internal/modelconfig"

// Policy is the version policy that a model is configured with; the default one if the model is unknown.
func (r *Repository) Policy(name string) (policy modelconfig.Policy) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if m := r.models[name]; m != nil {
		policy = m.config.Policy
	}
	return policy
}
