package model

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"sluicegate/go_infer/internal/panics"
	"sluicegate/go_infer/internal/tensor"
)

// TestAPanicOfAShadowCostsTheRequestNothing, wherever it comes: when the shadow is looked for, or in the copy's own goroutine.
func TestAPanicOfAShadowCostsTheRequestNothing(t *testing.T) {
	quiet(t)
	m, pool, _, err := rowsProbe(t, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	run := func(s *Servable) error {
		request := NewRequest(1)
		defer request.Release()
		value, err := request.SetInput(0, pool, tensor.Float32, 1, 2)
		if err != nil {
			t.Fatal(err)
		}
		clear(value.Bytes())
		request.Rows = 1
		return s.Run(context.Background(), request)
	}
	tried := 0
	for name, s := range m.Signatures {
		if s.Refused != "" || len(s.Inputs) != 1 || s.Inputs[0].Type != tensor.Float32 || run(s) != nil { // of others, or that takes no zeros
			continue
		}
		tried++
		for place, acquire := range map[string]func(released chan bool) (*Model, func()){
			"looked for": func(chan bool) (*Model, func()) { panic("on purpose") },
			"run": func(released chan bool) (*Model, func()) {
				broken := &Servable{Signature: s.Signature, Model: m} // it has no queue
				return &Model{Signatures: map[string]*Servable{name: broken}}, func() { released <- true }
			},
		} {
			released, outcomes := make(chan bool, 2), make(chan Outcome, 2)
			m.Mirror(NewShadow(100, 1, func(*Model) (*Model, func()) { return acquire(released) }, func(o Outcome) { outcomes <- o }))
			for range 2 { // the second needs the place of the first
				before := panics.Count()
				if err := run(s); err != nil {
					t.Errorf("signature %q, a panic when the shadow is %s: %v", name, place, err)
				}
				if place == "run" {
					if got := <-outcomes; got != Failed {
						t.Errorf("the copy is told to be %v", got)
					}
					<-released
				}
				for end := time.Now().Add(10 * time.Second); panics.Count() != before+1; time.Sleep(time.Millisecond) {
					if time.Now().After(end) {
						t.Fatalf("%d panics are counted, want 1", panics.Count()-before)
					}
				}
				for end := time.Now().Add(10 * time.Second); len(m.shadow.Load().places) > 0; time.Sleep(time.Millisecond) {
					if time.Now().After(end) {
						t.Fatal("the copy's place is still taken")
					}
				}
			}
		}
		m.Mirror(nil)
	}
	if tried == 0 {
		t.Error("no signature was tried")
	}
}

// quiet has panics on purpose not told.
func quiet(t *testing.T) {
	before := slog.Default()
	slog.SetDefault(slog.New(slog.DiscardHandler))
	t.Cleanup(func() { slog.SetDefault(before) })
}
