package rpc

import (
	"context"
	"testing"

	"google.golang.org/grpc/metadata"

	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/status"
)

func TestACallSaysItsClassInItsMetadata(t *testing.T) {
	for _, c := range []struct {
		key, value string
		trusted    bool
		class      batch.Class
		refused    bool
	}{
		{"X-Priority", "critical", true, batch.Critical, false},
		{"X-Priority", "critical", false, batch.Default, false},
		{"X-Priority", "batch", false, batch.Batch, false},
		{"X-Priority", "", false, batch.Default, false},
		{"X-Priority", "urgent", false, batch.Default, true},
		{"", "urgent", false, batch.Default, false}, // nobody asks
	} {
		ctx := metadata.NewIncomingContext(context.Background(), metadata.Pairs("x-priority", c.value))
		ctx, err := classified(ctx, c.key, c.trusted)
		if (err != nil) != c.refused || c.refused && status.From(err).Code != status.InvalidArgument || Class(ctx) != c.class {
			t.Errorf("%s=%s: %v, %v", c.key, c.value, Class(ctx), err)
		}
	}
	if ctx, err := classified(context.Background(), "X-Priority", false); err != nil || Class(ctx) != batch.Default {
		t.Error("a call that says nothing is not ordinary")
	}
}
