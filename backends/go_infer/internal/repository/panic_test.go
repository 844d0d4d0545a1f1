package repository

import (
	"log/slog"
	"testing"

	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/modelconfig"
	"sluicegate/go_infer/internal/panics"
)

func TestAVersionWhoseLoadPanicsIsRefusedAndHarmsNoOther(t *testing.T) {
	quiet(t)
	s := newStage(t, Options{})
	load := s.options.Load
	s.options.Load = func(name string, version int64, directory string) (*model.Model, error) {
		if version == 2 {
			panic("on purpose")
		}
		return load(name, version, directory)
	}
	before := panics.Count()
	s.put("m", 1, "")
	must(t, s.reload(s.config("m", modelconfig.Policy{All: true}, nil)))
	s.put("m", 2, "")
	s.eventually("m", "2 END, 1 AVAILABLE")
	s.answers("m", Wanted{}, 1)
	if panics.Count() == before {
		t.Error("the panic is not counted")
	}
	s.put("m", 3, "")
	s.eventually("m", "3 AVAILABLE, 2 END, 1 AVAILABLE")
}

// quiet has panics on purpose not told.
func quiet(t *testing.T) {
	before := slog.Default()
	slog.SetDefault(slog.New(slog.DiscardHandler))
	t.Cleanup(func() { slog.SetDefault(before) })
}
