package rpc

import (
	"context"
	"strings"

	"google.golang.org/grpc/metadata"

	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/status"
)

// classified puts the class that the call's metadata claims (critical, default or batch, under that key) into its context, as far as it
// is believed.
func classified(ctx context.Context, key string, trusted bool) (context.Context, error) {
	if key == "" {
		return ctx, nil
	}
	for _, value := range metadata.ValueFromIncomingContext(ctx, strings.ToLower(key)) {
		class, err := batch.ParseClass(value)
		if err != nil {
			return ctx, status.Errorf(status.InvalidArgument, "%s: %v", key, err)
		}
		ctx = context.WithValue(ctx, batch.ContextKey, batch.Claim(class, batch.Default, trusted))
	}
	return ctx, nil
}

// Class is how urgent the call is, by its metadata.
func Class(ctx context.Context) batch.Class {
	class, _ := ctx.Value(batch.ContextKey).(batch.Class)
	return class
}
