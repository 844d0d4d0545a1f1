package model_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/savedmodel"
	"sluicegate/go_infer/internal/tensor"
)

// Whoever is told that a model is warm breaks what it was warmed with: so it shows whether that is run again.
func TestAModelIsWarmedAgainIfWhoIsToldSaysSo(t *testing.T) {
	for _, c := range []struct {
		name  string
		again bool
	}{{"it is still in memory", false}, {"it may be out of memory", true}} {
		t.Run(c.name, func(t *testing.T) {
			pool, asked := tensor.NewPool(), 0
			directory := spoil(t, func(string) error { return nil })
			o := options(pool)
			o.Warmed = func() bool {
				asked++
				if err := os.WriteFile(filepath.Join(directory, savedmodel.WarmupFile), []byte("hello, world"), 0o600); err != nil {
					t.Error(err)
				}
				return c.again
			}
			m, err := model.Load("digits", 1, directory, o)
			if err != nil {
				t.Fatal(err)
			}
			again := slices.ContainsFunc(m.Notes(), func(note string) bool { return strings.HasPrefix(note, "it is not warmed again: ") })
			if asked != 1 || again != c.again {
				t.Errorf("asked %d times, warmed again: %v; want once and %v", asked, again, c.again)
			}
			m.Close()
			pool.Drain()
		})
	}
}

func TestWhoWaitsForAWarmModelIsNotToldOfABrokenOne(t *testing.T) {
	pool := tensor.NewPool()
	o := options(pool)
	o.Warmed = func() bool { t.Error("told that it is warm"); return true }
	directory := spoil(t, func(directory string) error {
		return os.WriteFile(filepath.Join(directory, savedmodel.WarmupFile), []byte("hello, world"), 0o600)
	})
	if m, err := model.Load("digits", 1, directory, o); err == nil {
		m.Close()
		t.Error("a version with broken warm-up requests was loaded")
	}
	pool.Drain()
}
