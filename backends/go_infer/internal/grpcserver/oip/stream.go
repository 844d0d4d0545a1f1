package oip

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"sluicegate/go_infer/internal/grpcserver/rpc"
	"sluicegate/go_infer/internal/panics"
	pb "sluicegate/go_infer/internal/pb/inference"
	"sluicegate/go_infer/internal/status"
)

// streamDepth is how many requests of one stream are in work at the same time, so that they can share a Run; the client's next one is
// not read before.
const streamDepth = 16

const streamMethod = "/" + ServiceName + "/ModelStreamInfer"

// modelStreamInfer answers the requests of a stream one for one and in their order. One that fails is answered with its error and its
// id, and does not end the stream. When the server drains, what was read is answered and the stream ends with UNAVAILABLE.
func (s *Service) modelStreamInfer(stream grpc.ServerStream) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	p := &pending{answers: make(chan chan any, streamDepth-1)} // and one that is being sent
	received, sent := make(chan error, 1), make(chan error, 1)
	go func() {
		received <- panics.Guard(nil, streamMethod, func() error { return s.receive(ctx, stream, p) })
	}()
	go func() { sent <- send(stream, p.answers, cancel) }()
	var ended error
	select {
	case ended = <-received:
		if ended != nil {
			cancel() // the client is gone: what waits for a Run need not run
		}
	case <-s.Draining: // RecvMsg returns when this function has
		ended = status.Errorf(status.Unavailable, "the server is draining")
	}
	p.close()
	if failed := <-sent; failed != nil {
		return errors.Join(failed, ended)
	}
	return ended // by itself: gRPC words a joined error anew
}

// pending are the requests in work, in their order.
type pending struct {
	mu      sync.Mutex
	closed  bool
	answers chan chan any
}

// add waits for room; false if nothing is taken any more.
func (p *pending) add(ctx context.Context, answered chan any) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	select {
	case p.answers <- answered:
		return true
	case <-ctx.Done():
		return false
	}
}

func (p *pending) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	close(p.answers)
}

// receive starts a goroutine for each request, until the client has sent its last.
func (s *Service) receive(ctx context.Context, stream grpc.ServerStream, p *pending) error {
	for {
		in := rpc.NewMessage()
		if err := s.around.Receiver.Receive(stream, in); err != nil {
			in.Release()
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		answered := make(chan any, 1)
		if !p.add(ctx, answered) {
			in.Release()
			return ctx.Err()
		}
		go func() {
			defer in.Release()
			var answer any
			err := panics.Guard(nil, streamMethod, func() error { answer = s.streamed(ctx, in); return nil })
			if err != nil {
				answer = &pb.ModelStreamInferResponse{ErrorMessage: err.Error(), InferResponse: &pb.ModelInferResponse{}}
			}
			answered <- answer
		}()
	}
}

// streamed answers one request of a stream.
func (s *Service) streamed(ctx context.Context, in *rpc.Message) any {
	var answer *rpc.Message
	var id string
	err := s.count(ctx, func(ctx context.Context) (err error) {
		answer, id, err = s.infer(ctx, in, true)
		return err
	})
	if err == nil {
		return answer
	}
	return &pb.ModelStreamInferResponse{ErrorMessage: rpc.Status(err).Message(), InferResponse: &pb.ModelInferResponse{Id: id}}
}

// send sends the answers in the order of their requests. When the client does not take one any more, the others are awaited and
// thrown away.
func send(stream grpc.ServerStream, pending <-chan chan any, cancel func()) (failed error) {
	for answered := range pending {
		answer := <-answered
		if failed == nil {
			if failed = panics.Guard(nil, streamMethod, func() error { return stream.SendMsg(answer) }); failed != nil {
				cancel()
			}
			continue
		}
		if _, isProto := answer.(proto.Message); !isProto {
			answer.(*rpc.Message).Data.Free()
		}
	}
	return failed
}
