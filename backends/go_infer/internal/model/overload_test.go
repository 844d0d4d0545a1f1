package model

import (
	"context"
	"maps"
	"testing"
	"time"

	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/tensor"
)

// TestTheHeadIsRefusedIfNoSignatureHasRoom: the head does not say which one a request means, and once it is known that one decides.
func TestTheHeadIsRefusedIfNoSignatureHasRoom(t *testing.T) {
	m, pool, _, err := rowsProbe(t, "", func(o *Options) {
		o.Trust = true
		o.Limits = batch.Limits{MaxBatch: 8, MaxQueue: 1, Slots: 1, Coalesce: true, Delay: time.Hour}
	})
	if err != nil {
		t.Fatal(err)
	}
	apart := map[string]*Servable{} // those have no batches that could wait for company
	for name, s := range m.Signatures {
		if s.Refused != "" || !s.Batchable() {
			apart[name] = s
			delete(m.Signatures, name)
		}
	}
	t.Cleanup(func() { maps.Copy(m.Signatures, apart) })
	if len(m.Signatures) < 2 {
		t.Fatalf("%d signatures are batched; two are needed to tell one from all", len(m.Signatures))
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	waiting := 0
	defer func() {
		cancel()
		for range waiting {
			<-ended
		}
	}()
	for _, name := range m.SignatureNames() {
		if err := m.Overloaded(ctx, batch.Default); err != nil {
			t.Errorf("signature %q has room: %v", name, err)
		}
		s := m.Signatures[name]
		request := NewRequest(1)
		value, err := request.SetInput(0, pool, tensor.Float32, 1, 2)
		if err != nil {
			t.Fatal(err)
		}
		clear(value.Bytes())
		request.Rows = 1
		waiting++
		go func() {
			defer func() { request.Release(); ended <- struct{}{} }()
			_ = s.Run(ctx, request)
		}()
		for end := time.Now().Add(10 * time.Second); s.Waiting() == 0; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("signature %q: its request does not wait", name)
			}
		}
		if err := s.Overloaded(ctx, batch.Default); status.From(err).Code != status.Unavailable {
			t.Errorf("signature %q is full: %v", name, err)
		}
		if err := s.Overloaded(ctx, batch.Critical); err != nil {
			t.Errorf("signature %q has room for what is more urgent: %v", name, err)
		}
	}
	if err := m.Overloaded(ctx, batch.Default); status.From(err).Code != status.Unavailable {
		t.Errorf("all are full: %v", err)
	}
	if err := m.Overloaded(ctx, batch.Critical); err != nil {
		t.Errorf("what is more urgent has room: %v", err)
	}
}
