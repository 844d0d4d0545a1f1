package oip

import (
	"encoding/json"
	"testing"

	"sluicegate/go_infer/internal/modelconfig"
)

func TestTheVersionPolicyIsToldAsItIs(t *testing.T) {
	for want, policy := range map[string]modelconfig.Policy{
		`{"all":{}}`:                      {All: true},
		`{"specific":{"versions":[3,4]}}`: {Specific: []int64{3, 4}},
		`{"latest":{"num_versions":1}}`:   {},
		`{"latest":{"num_versions":2}}`:   {Latest: 2},
	} {
		if got, err := json.Marshal(versionPolicy(policy)); err != nil || string(got) != want {
			t.Errorf("%+v: %s, %v; want %s", policy, got, err, want)
		}
	}
}
