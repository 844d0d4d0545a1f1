// Package grpcserver is the gRPC side of the server: TensorFlow Serving's and the Open Inference Protocol's services, health and
// reflection, on one or more listeners.
//
// Life: as package server's: listen -> load (alive, not serving) -> serving -> drain (not serving; then no new connections and no new
// calls, what runs is finished) -> stop. Invariants: a message is bounded before it is read, a connection's calls are bounded, and a
// peer that is gone is found out, so nothing that a client does holds memory for ever.
package grpcserver

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // clients may compress; MaxMessage bounds what comes out
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"sluicegate/go_infer/internal/grpcserver/oip"
	"sluicegate/go_infer/internal/grpcserver/rpc"
	"sluicegate/go_infer/internal/grpcserver/tensorproto"
	"sluicegate/go_infer/internal/grpcserver/tfserving"
	"sluicegate/go_infer/internal/panics"
	"sluicegate/go_infer/internal/stop"
)

const (
	pingAfter         = time.Minute      // a connection on which nothing moves is asked whether it lives; grpc-go: 2 h
	pingTimeout       = 20 * time.Second // and is closed if it does not answer
	pingsNotOften     = 10 * time.Second // a client that pings more often is sent away; grpc-go: 5 min, which many clients exceed
	connectionTimeout = 10 * time.Second // for the HTTP/2 preface, as the header's timeout of package server
	maxHeaderList     = 16 << 10         // bytes, as the header's bound of package server
	connectionWindow  = 16 << 20         // bytes of all calls of a connection that may be under way to the server
	handlers          = 64               // goroutines that stay for the next call, with the stack that they have; beyond, each call gets one of its own
)

// Options are the numbers of a server.
type Options struct {
	MaxMessage    int        // bytes of a message, received (after decompression) or sent; also of one tensor
	Bodies        rpc.Budget // of all messages that are held together; nil: not bounded
	MaxStreams    uint32     // calls at a time on one connection
	Window        int32      // bytes of a call that its client may send before they are read, 64 KiB or more
	TensorContent bool       // answer with tensor_content instead of the typed fields
	TrustPriority bool       // believe requests that they are more urgent than others
	Release       string     // this server's version, for ServerMetadata
}

// Parts are what the services serve.
type Parts struct {
	Models   rpc.Models
	Ready    func() bool
	Reloader tfserving.Reloader // may be nil
	Control  rpc.Controller     // may be nil
	Around   *rpc.Around
}

// Server is the services and the connections they are called on.
type Server struct {
	grpc    *grpc.Server
	health  *health
	streams chan struct{} // closed when streams of requests shall end
	end     sync.Once
	around  *rpc.Around
	open    atomic.Int64 // connections
	short   atomic.Int64 // calls that had not been answered
}

// New makes a server that does not listen yet.
func New(o Options, parts Parts) *Server {
	s := &Server{
		grpc: grpc.NewServer(
			grpc.ForceServerCodecV2(rpc.Codec{}),
			grpc.MaxRecvMsgSize(o.MaxMessage),
			grpc.MaxSendMsgSize(o.MaxMessage),
			grpc.MaxConcurrentStreams(o.MaxStreams),
			grpc.StaticStreamWindowSize(o.Window), // that it does not change spares a PING with nearly every request (docs/adr/0049)
			grpc.StaticConnWindowSize(max(connectionWindow, o.Window)),
			grpc.NumStreamWorkers(handlers),
			grpc.MaxHeaderListSize(maxHeaderList),
			grpc.ConnectionTimeout(connectionTimeout),
			grpc.WaitForHandlers(true),
			grpc.ChainUnaryInterceptor(guardCall),
			grpc.ChainStreamInterceptor(guardStream),
			grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingAfter, Timeout: pingTimeout}),
			grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingsNotOften, PermitWithoutStream: true}),
		),
		health:  newHealth(parts.Models, parts.Ready),
		streams: make(chan struct{}),
		around:  parts.Around,
	}
	parts.Around.Receiver = rpc.Receiver{Most: o.MaxMessage, Budget: o.Bodies}
	serving := &tfserving.Service{Models: parts.Models, Reloader: parts.Reloader, MaxTensor: o.MaxMessage,
		Writer: tensorproto.Writer{Content: o.TensorContent}}
	serving.Register(s.grpc, parts.Around)
	inference := &oip.Service{Models: parts.Models, Ready: s.health.serving, Control: parts.Control, MaxTensor: o.MaxMessage, Release: o.Release, Draining: s.streams,
		TrustPriority: o.TrustPriority}
	inference.Register(s.grpc, parts.Around)
	grpc_health_v1.RegisterHealthServer(s.grpc, s.health)
	reflection.Register(s.grpc)
	return s
}

// guardCall and guardStream keep a panic of one call from ending the process. What this server's own services count they guard, too.
func guardCall(ctx context.Context, in any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (out any, err error) {
	err = panics.Guard(nil, info.FullMethod, func() (err error) { out, err = handle(ctx, in); return err })
	return out, rpc.Status(err).Err()
}

func guardStream(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	return rpc.Status(panics.Guard(nil, info.FullMethod, func() error { return handle(service, stream) })).Err()
}

// Serve answers on a listener until Drain or Stop; then it returns nil. It may be called for several listeners at the same time.
func (s *Server) Serve(listener net.Listener) error { return s.grpc.Serve(counted{listener, &s.open}) }

// Drain stops the server gently: from now on health checks say so; after grace no connection and no call is accepted, and what runs is
// finished, until ctx ends: then it is cut off and the context's error returned, though handlers may still run. Calls whose message is still
// arriving are refused at stop.Cutoff.
func (s *Server) Drain(ctx context.Context, grace time.Duration) error {
	s.health.drain()
	select {
	case <-time.After(grace):
	case <-ctx.Done():
	}
	s.end.Do(func() { close(s.streams) })
	finished := make(chan struct{})
	go func() {
		s.grpc.GracefulStop()
		close(finished)
	}()
	cutoff, end := stop.Timer(ctx)
	defer end()
	for {
		select {
		case <-finished:
			return nil
		case <-cutoff:
			s.around.Refuse()
		case <-ctx.Done():
			s.short.Store(max(s.around.Answering(), s.open.Load()))
			go s.Stop() // it waits for handlers, and what ctx bounds must not
			return ctx.Err()
		}
	}
}

// CutOff is whom Drain has cut off. Of calls whose handlers had returned, but whose answers their clients had not read, it knows that there
// was at least one on each connection.
func (s *Server) CutOff() stop.Cut {
	return stop.Cut{Arriving: s.around.Refused(), Answering: s.short.Load()}
}

// Stop cuts off everything and returns when no call runs any more.
func (s *Server) Stop() {
	s.health.drain()
	s.end.Do(func() { close(s.streams) })
	s.grpc.Stop()
}
