package model

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluicegate/go_infer/internal/savedmodel"
)

// What a signature changes is as its version brings it until the first request, and what only looks is tried, warmed and batched.
func TestMadeUpRowsDoNotChangeTheStateOfAModel(t *testing.T) {
	m, pool, told, err := tried(t, "state", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, operation := range map[string]string{
		"add": "AssignAddVariableOp", "deep": "AssignAddVariableOp", "scatter": "ResourceScatterAdd", "insert": "LookupTableInsertV2",
		"serving_default": "", "find": "",
	} {
		s := signature(t, m, name)
		if s.Changes != operation || s.Batchable() != (operation == "") || (len(s.runner.warmed) == 0) != (operation != "") {
			t.Errorf("%s: changes with %q, batched: %v, warmed: %v", name, s.Changes, s.Batchable(), s.runner.warmed)
		}
		said := slices.ContainsFunc(*told, func(text string) bool {
			return strings.Contains(text, `"`+name+`" is not batched`) && strings.Contains(text, "its Runs change state ("+operation+")")
		})
		if said != (operation != "") {
			t.Errorf("%s: told %q", name, *told)
		}
	}
	for i, c := range []struct {
		signature string
		rows      []float32
		want      float32
	}{
		{"serving_default", []float32{1, 1}, 0}, {"add", []float32{1, 2, 3, 4}, 10}, {"add", []float32{5, 5}, 20}, {"deep", []float32{0, 0}, 43},
		{"serving_default", []float32{1, 1}, 22}, {"scatter", []float32{7, 8}, 7}, {"scatter", []float32{7, 8}, 14},
	} {
		got, _, err := pairs(t, signature(t, m, c.signature), pool, c.rows...)
		if err != nil || got[0] != c.want {
			t.Errorf("%d: %s answers %v, %v; want %v", i, c.signature, got, err, c.want)
		}
	}
}

func TestARecordedRequestChangesTheStateOnce(t *testing.T) {
	again := func(o *Options) { o.Limits.Slots, o.Warmed = 2, func() bool { return true } }
	m, pool, _, err := tried(t, "state", "", again, func(directory string) error {
		return os.WriteFile(filepath.Join(directory, savedmodel.WarmupFile), []byte(recordedRows("add", [2]float32{1, 2})), 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, _, err := pairs(t, signature(t, m, "serving_default"), pool, 1, 1); err != nil || got[0] != 3 {
		t.Errorf("the sum is %v, %v", got, err)
	}
}

func TestWhoeverSaysThatAStatefulSignatureIsBatchedHasItSo(t *testing.T) {
	for name, c := range map[string]struct {
		declared string
		change   func(*Options)
	}{
		"declared":   {`{"batching": {"add": true}}`, nil},
		"not looked": {"", func(o *Options) { o.Trust = true }},
	} {
		t.Run(name, func(t *testing.T) {
			m, pool, _, err := tried(t, "state", c.declared, c.change)
			if err != nil {
				t.Fatal(err)
			}
			s := signature(t, m, "add")
			if got, _, err := pairs(t, s, pool, 1, 2); !s.Batchable() || err != nil || got[0] != 3 {
				t.Errorf("batched: %v; the sum is %v, %v", s.Batchable(), got, err)
			}
		})
	}
}
