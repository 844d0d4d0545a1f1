package batch

import (
	"testing"
	"time"
)

func TestTurnsHaveASlotOfASaturatedShareAndGiveItBack(t *testing.T) {
	share := NewShare(1)
	model, granted := share.Join("m", 1), make(chan struct{}, 1)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		share.Turns(done, ms, ms)
		close(ended)
	}()
	longest := time.Duration(0) // that the model, which always wants it, was without the slot
	for begin := time.Now(); time.Since(begin) < 10*time.Second && longest < ms; {
		asked := time.Now()
		model.acquire(granted)
		longest = max(longest, time.Since(asked))
		model.release(100 * time.Microsecond)
	}
	if longest < ms {
		t.Error("the slot was never somebody else's for a turn")
	}
	model.acquire(granted) // so that the end may come while a turn waits
	close(done)
	model.release(ms)
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the turns go on after done")
	}
	if share.free != 1 || share.members[loads] != nil {
		t.Errorf("%d slots are free, want 1; its member is still there: %v", share.free, share.members[loads] != nil)
	}
}
