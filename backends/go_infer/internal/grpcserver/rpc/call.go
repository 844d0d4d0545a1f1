package rpc

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"sluicegate/go_infer/internal/metrics"
	"sluicegate/go_infer/internal/panics"
	"sluicegate/go_infer/internal/status"
)

// Around is what happens around every call.
type Around struct {
	Registry *metrics.Registry
	Log      *slog.Logger // one line per call; nil: none
	Priority string       // metadata in which a call says its class; empty: in none
	// TrustPriority believes calls that they are more urgent than others. Without it they can only be less.
	TrustPriority bool
	Receiver      Receiver      // of the calls' messages
	Pushback      time.Duration // after which a refused client may come again, if the refusal does not say; 0: never told
	// Trace begins the span of a call. It is given the client's metadata, in which "traceparent" and "tracestate" are (W3C Trace
	// Context); what it returns is called at the end. nil: no tracing.
	Trace func(ctx context.Context, method string, incoming metadata.MD) (context.Context, func(error))

	arriving  arrivals
	answering atomic.Int64
}

// Answering is how many calls are being answered, streams among them; not those of services that this package knows nothing of.
func (a *Around) Answering() int64 { return a.answering.Load() }

// Refuse ends the calls whose message has not arrived, with UNAVAILABLE, and Refused is how many those were.
func (a *Around) Refuse()        { a.arriving.refuse() }
func (a *Around) Refused() int64 { return a.arriving.count() }

// receive reads the only message of a call.
func (a *Around) receive(stream grpc.ServerStream, in *Message) error {
	one := &arrival{}
	one.call, _ = grpc.ServerTransportStreamFromContext(stream.Context()).(ender)
	if err := a.arriving.begin(one); err != nil {
		return err
	}
	defer a.arriving.end(one)
	return a.Receiver.Receive(stream, in)
}

// Run does one call, or one message of a stream: the counting, the tracing and the status around what handle does. If that panics the
// call has failed, and no other.
func (a *Around) Run(ctx context.Context, method string, endpoint metrics.Endpoint, handle func(context.Context) error) error {
	begun := a.Registry.Begin()
	ended := func(error) {}
	if a.Trace != nil {
		incoming, _ := metadata.FromIncomingContext(ctx)
		ctx, ended = a.Trace(ctx, method, incoming)
	}
	ctx, err := classified(ctx, a.Priority, a.TrustPriority)
	if err == nil {
		err = panics.Guard(a.Log, method, func() error { return handle(ctx) })
	}
	said := Status(err)
	ended(err)
	a.Registry.End(endpoint, status.Code(said.Code()).HTTP(), begun)
	if a.Log != nil {
		a.Log.Info("request", "method", method, "code", said.Code().String(), "ms", float64(time.Since(begun).Microseconds())/1e3)
	}
	if said.Code() == codes.OK {
		return nil
	}
	return said.Err()
}

// Method makes a method of a function on decoded messages.
func Method[In, Out any, PIn interface {
	*In
	proto.Message
}, POut interface {
	*Out
	proto.Message
}](a *Around, service, name string, endpoint metrics.Endpoint, handle func(context.Context, PIn) (POut, error)) grpc.StreamDesc {
	return RawMethod(a, service, name, endpoint, func(ctx context.Context, raw *Message) (any, error) {
		in := PIn(new(In))
		if err := (Codec{}).Unmarshal(raw.Data, in); err != nil {
			return nil, grpcstatus.Errorf(codes.Internal, "grpc: error unmarshalling request: %v", err)
		}
		return handle(ctx, in)
	})
}

// RawMethod makes a method of a function that reads the request itself, and answers with a Message or any other protobuf message. The
// request's buffers are valid until it returns. To gRPC it is a stream, for what a stream does before its message is read is ours to
// say; on the wire there is no difference.
func RawMethod(a *Around, service, name string, endpoint metrics.Endpoint,
	handle func(ctx context.Context, in *Message) (any, error)) grpc.StreamDesc {
	full := "/" + service + "/" + name
	return grpc.StreamDesc{StreamName: name,
		Handler: func(_ any, stream grpc.ServerStream) error {
			in := NewMessage()
			defer in.Release()
			received := a.receive(stream, in)
			a.answering.Add(1)
			defer a.answering.Add(-1)
			if received != nil && !refused(received) { // it is the peer's doing, or gRPC's: no request
				if errors.Is(received, io.EOF) {
					return grpcstatus.Error(codes.Internal, "the call has no message")
				}
				return Status(received).Err()
			}
			var out any
			var refusal error
			err := a.Run(stream.Context(), full, endpoint, func(ctx context.Context) error {
				if refusal = received; refusal == nil {
					out, refusal = handle(ctx, in)
				}
				return refusal
			})
			if err != nil {
				pushback(stream.Context(), refusal, a.Pushback)
				return err
			}
			return stream.SendMsg(out)
		}}
}

// refused says whether an error is this server's word on a request.
func refused(err error) bool {
	var ours *status.Error
	return errors.As(err, &ours)
}

// Stream makes a stream of messages in both directions, which handle reads and writes, and counts, itself. If this server ends it, it is
// told when to come again, as a call is.
func Stream(a *Around, name string, handle func(grpc.ServerStream) error) grpc.StreamDesc {
	return grpc.StreamDesc{StreamName: name, ServerStreams: true, ClientStreams: true,
		Handler: func(_ any, stream grpc.ServerStream) error {
			a.answering.Add(1)
			defer a.answering.Add(-1)
			err := handle(stream)
			if refused(err) {
				pushback(stream.Context(), err, a.Pushback)
			}
			return Status(err).Err()
		}}
}
