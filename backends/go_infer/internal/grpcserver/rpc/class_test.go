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
		class      batch.Class
		refused    bool
	}{
		{"X-Priority", "critical", batch.Critical, false},
		{"X-Priority", "batch", batch.Batch, false},
		{"X-Priority", "", batch.Default, false},
		{"X-Priority", "urgent", batch.Default, true},
		{"", "urgent", batch.Default, false}, // nobody asks
	} {
		ctx := metadata.NewIncomingContext(context.Background(), metadata.Pairs("x-priority", c.value))
		ctx, err := classified(ctx, c.key)
		if (err != nil) != c.refused || c.refused && status.From(err).Code != status.InvalidArgument || Class(ctx) != c.class {
			t.Errorf("%s=%s: %v, %v", c.key, c.value, Class(ctx), err)
		}
	}
	if ctx, err := classified(context.Background(), "X-Priority"); err != nil || Class(ctx) != batch.Default {
		t.Error("a call that says nothing is not ordinary")
	}
}
