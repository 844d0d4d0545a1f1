package oip

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"sluicegate/go_infer/internal/api"
	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/modelconfig"
	"sluicegate/go_infer/internal/repository"
	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/triton"
)

// platform is what Triton and KServe call a TensorFlow SavedModel.
const platform = "tensorflow_savedmodel"

type tensorMetadata struct {
	Name     string  `json:"name"`
	Datatype string  `json:"datatype"`
	Shape    []int64 `json:"shape"`
}

func print(x *api.Exchange, answer any) error {
	text, err := json.Marshal(answer)
	x.Answer = append(append(x.Answer, text...), '\n')
	return err
}

func (h *Handler) document(x *api.Exchange, _ *target) error {
	x.Answer = append(x.Answer, Document...)
	return nil
}

func (h *Handler) serverMetadata(x *api.Exchange, _ *target) error {
	return print(x, struct {
		Name       string   `json:"name"`
		Version    string   `json:"version"`
		Extensions []string `json:"extensions"`
	}{"go_infer", h.Release, Extensions})
}

func (h *Handler) live(x *api.Exchange, _ *target) error {
	return print(x, map[string]bool{"live": true})
}

func (h *Handler) ready(x *api.Exchange, _ *target) error {
	if ready, why := h.Ready(); !ready {
		return status.Errorf(status.Unavailable, "the server is not ready: %s", why)
	}
	return print(x, map[string]bool{"ready": true, "live": true})
}

func (h *Handler) modelReady(x *api.Exchange, t *target) error {
	lease, err := h.find(x.Context, t)
	if err != nil {
		return err
	}
	defer lease.Release()
	m := lease.Model
	return print(x, struct {
		Name  string `json:"name"`
		Ready bool   `json:"ready"`
	}{m.Name, true})
}

func (h *Handler) modelMetadata(x *api.Exchange, t *target) error {
	lease, err := h.find(x.Context, t)
	if err != nil {
		return err
	}
	defer lease.Release()
	m := lease.Model
	s, err := triton.Signature(m, "")
	if err != nil {
		return err
	}
	return print(x, struct {
		Name     string           `json:"name"`
		Versions []string         `json:"versions"`
		Platform string           `json:"platform"`
		Inputs   []tensorMetadata `json:"inputs"`
		Outputs  []tensorMetadata `json:"outputs"`
	}{m.Name, h.available(m.Name), platform, describe(s.Inputs), describe(s.Outputs)})
}

// available lists the versions that can be asked for, ascending.
func (h *Handler) available(name string) []string {
	numbers := []string{}
	for _, version := range slices.Backward(h.Repository.Versions(name)) {
		if version.State == repository.Available {
			numbers = append(numbers, strconv.FormatInt(version.Number, 10))
		}
	}
	return numbers
}

func describe(infos []model.TensorInfo) []tensorMetadata {
	all := []tensorMetadata{}
	for i := range infos {
		// A shape of unknown rank cannot be said in this protocol; one free dimension is the nearest.
		shape := append([]int64{}, infos[i].Dims...)
		if !infos[i].Known {
			shape = []int64{-1}
		}
		all = append(all, tensorMetadata{infos[i].Alias, triton.Datatypes[infos[i].Type], shape})
	}
	return all
}

// The part of Triton's ModelConfig (model_config.proto) that has a meaning here, as protobuf prints it.
type (
	configJSON struct {
		Name      string        `json:"name"`
		Platform  string        `json:"platform"`
		Backend   string        `json:"backend"`
		Policy    any           `json:"version_policy"`
		MaxBatch  int           `json:"max_batch_size"`
		Input     []configIO    `json:"input"`
		Output    []configIO    `json:"output"`
		Instances []configGroup `json:"instance_group"`
		Batching  *configBatch  `json:"dynamic_batching,omitempty"`
		Notes     configNotes   `json:"parameters,omitempty"`
	}
	configNotes map[string]map[string]string
	configIO    struct {
		Name string  `json:"name"`
		Type string  `json:"data_type"`
		Dims []int64 `json:"dims"`
	}
	configGroup struct {
		Name  string `json:"name"`
		Kind  string `json:"kind"`
		Count int    `json:"count"`
	}
	configBatch struct {
		Preferred []int `json:"preferred_batch_size"`
		Delay     int64 `json:"max_queue_delay_microseconds"`
	}
)

func (h *Handler) config(x *api.Exchange, t *target) error {
	lease, err := h.find(x.Context, t)
	if err != nil {
		return err
	}
	defer lease.Release()
	m := lease.Model
	s, err := triton.Signature(m, "")
	if err != nil {
		return err
	}
	batched := s.Batchable() || s.Rowwise() && !m.Limits.Coalesce
	c := configJSON{
		Name: m.Name, Platform: platform, Backend: "tensorflow",
		Input: configure(s.Inputs, batched), Output: configure(s.Outputs, batched),
		Instances: []configGroup{{m.Name, "KIND_CPU", m.Limits.Slots}},
	}
	c.Policy = versionPolicy(h.Repository.Policy(m.Name))
	if batched {
		c.MaxBatch = m.Limits.MaxBatch
	}
	if batched && m.Limits.Coalesce {
		c.Batching = &configBatch{[]int{m.Limits.MaxBatch}, m.Limits.Delay.Microseconds()}
	}
	if notes := m.Notes(); len(notes) > 0 {
		c.Notes = configNotes{"notes": {"string_value": strings.Join(notes, "\n")}}
	}
	return print(x, c)
}

// versionPolicy is a version policy as Triton's ModelVersionPolicy.
func versionPolicy(p modelconfig.Policy) any {
	switch {
	case p.All:
		return map[string]any{"all": struct{}{}}
	case len(p.Specific) > 0:
		return map[string]any{"specific": map[string][]int64{"versions": p.Specific}}
	}
	return map[string]any{"latest": map[string]int{"num_versions": max(p.Latest, 1)}}
}

// configure leaves out the dimension of a batch, as Triton's configurations do.
func configure(infos []model.TensorInfo, batched bool) []configIO {
	all := []configIO{}
	for _, info := range describe(infos) {
		if batched {
			info.Shape = info.Shape[1:]
		}
		datatype := "TYPE_" + info.Datatype
		if info.Datatype == "BYTES" {
			datatype = "TYPE_STRING"
		}
		all = append(all, configIO{info.Name, datatype, info.Shape})
	}
	return all
}
