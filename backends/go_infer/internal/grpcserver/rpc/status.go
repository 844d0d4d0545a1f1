package rpc

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"

	"sluicegate/go_infer/internal/status"
)

// PushbackKey is the trailer that tells a client's retry policy how long to wait, in milliseconds (gRFC A6).
const PushbackKey = "grpc-retry-pushback-ms"

// messageLimit is the longest text of a status; it travels in a header. TensorFlow Serving cuts at the same length.
const messageLimit = 1024

// Status is the gRPC status of an error. The codes of package status are gRPC's own.
func Status(err error) *grpcstatus.Status {
	if err == nil {
		return nil
	}
	if already, ok := grpcstatus.FromError(err); ok {
		return already
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return grpcstatus.New(codes.DeadlineExceeded, err.Error())
	case errors.Is(err, context.Canceled):
		return grpcstatus.New(codes.Canceled, err.Error())
	}
	refusal := status.From(err)
	text := strings.ToValidUTF8(refusal.Message, "\ufffd")
	if len(text) > messageLimit {
		text = strings.ToValidUTF8(text[:messageLimit], "") + "... (truncated)"
	}
	return grpcstatus.New(codes.Code(refusal.Code), text)
}

// pushback tells the client when to come again, if the refusal of its call is of the kind that passes: when the refusal itself says, else
// after the usual time. A call has one trailer: it is told once, at its end.
func pushback(ctx context.Context, err error, usual time.Duration) {
	if code := Status(err).Code(); usual <= 0 || code != codes.Unavailable && code != codes.ResourceExhausted {
		return
	}
	after := usual
	if known := (*status.Error)(nil); errors.As(err, &known) && known.RetryAfter > 0 {
		after = known.RetryAfter
	}
	_ = grpc.SetTrailer(ctx, metadata.Pairs(PushbackKey, strconv.FormatInt(max(1, after.Milliseconds()), 10)))
}
