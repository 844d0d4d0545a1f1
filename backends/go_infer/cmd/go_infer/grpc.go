package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"syscall"
	"time"

	"google.golang.org/protobuf/encoding/prototext"

	"sluicegate/go_infer/internal/grpcserver"
	"sluicegate/go_infer/internal/grpcserver/rpc"
	"sluicegate/go_infer/internal/listen"
	"sluicegate/go_infer/internal/metrics"
	"sluicegate/go_infer/internal/modelconfig"
	"sluicegate/go_infer/internal/pb/serving"
	"sluicegate/go_infer/internal/repository"
	"sluicegate/go_infer/internal/server"
	"sluicegate/go_infer/internal/status"
)

// grpcOptions are the flags of the gRPC side.
type grpcOptions struct {
	host, socket           string
	port                   int
	portGiven              bool
	maxMessage, maxStreams int
	window                 int
	tensorContent          bool
}

// noGRPC as --port turns gRPC off.
const noGRPC = -1

func (g *grpcOptions) register(f *flag.FlagSet) {
	f.IntVar(&g.port, "port", 8500, "`port` for gRPC; 0 takes a free one and logs it, -1 turns gRPC off")
	f.StringVar(&g.host, "grpc_host", "", "`address` for gRPC (default: that of --rest_api_host)")
	f.StringVar(&g.socket, "grpc_socket_path", "", "UNIX `socket` on which gRPC is served, too")
	f.IntVar(&g.maxMessage, "grpc_max_message", 64<<20, "largest gRPC message and largest tensor in it, in `bytes`")
	f.IntVar(&g.maxStreams, "grpc_max_concurrent_streams", 256, "most `calls` at a time on one gRPC connection")
	f.IntVar(&g.window, "grpc_window", 1<<20, "`bytes` of a gRPC call that its client may send before they are read: more for large messages over long ways")
	f.BoolVar(&g.tensorContent, "enable_serialization_as_tensor_content", false, "answer Predict with tensor_content instead of the typed fields")
}

// parsed is called after the flags were parsed.
func (g *grpcOptions) parsed(f *flag.FlagSet, restHost string) {
	f.Visit(func(set *flag.Flag) { g.portGiven = g.portGiven || set.Name == "port" })
	if g.host == "" {
		g.host = restHost
	}
}

// grpcSide is the gRPC server and where it listens.
type grpcSide struct {
	*grpcserver.Server
	listeners []net.Listener
	served    chan error // what made a listener fail
}

// listenGRPC takes the port and the socket; nil if gRPC is off. A default port that somebody else has is replaced by a free one.
func listenGRPC(g *grpcOptions, log *slog.Logger) (*grpcSide, error) {
	if g.port == noGRPC && g.socket == "" {
		return nil, nil
	}
	side := &grpcSide{}
	if g.port != noGRPC {
		listener, err := net.Listen("tcp", net.JoinHostPort(g.host, strconv.Itoa(g.port)))
		if errors.Is(err, syscall.EADDRINUSE) && !g.portGiven {
			log.Warn("the default port of gRPC is in use; another is taken", "port", g.port)
			listener, err = net.Listen("tcp", net.JoinHostPort(g.host, "0"))
		}
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("port %d on %s is in use; stop what listens there or choose another with --port", g.port, g.host)
		} else if err != nil {
			return nil, fmt.Errorf("cannot listen for gRPC on %s port %d: %w", g.host, g.port, err)
		}
		side.listeners = append(side.listeners, listener)
	}
	if g.socket != "" {
		listener, err := listen.Unix(g.socket)
		if err != nil {
			side.close()
			return nil, fmt.Errorf("--grpc_socket_path: %w", err)
		}
		side.listeners = append(side.listeners, listener)
	}
	return side, nil
}

// serve makes the server and answers on every listener.
func (s *grpcSide) serve(o *options, rest *server.Server, repo *repository.Repository, control rpc.Controller, bodies rpc.Budget, registry *metrics.Registry, log *slog.Logger) {
	around := &rpc.Around{Registry: registry, Pushback: time.Second, Priority: o.batching.priority, TrustPriority: o.batching.trust}
	if rest.LogEach {
		around.Log = log
	}
	if rest.Spans != nil {
		around.Trace = traceCalls(rest.Spans)
	}
	parts := grpcserver.Parts{
		Models: repo,
		Ready:  func() bool { ready, _ := rest.Readiness(); return ready },
		Around: around,
	}
	if control != nil {
		parts.Control, parts.Reloader = control, reloader{repo}
	}
	s.Server = grpcserver.New(grpcserver.Options{
		MaxMessage:    min(o.grpc.maxMessage, o.maxBodies), // what can never be held need not be waited for
		Bodies:        bodies,
		MaxStreams:    uint32(o.grpc.maxStreams),
		Window:        int32(o.grpc.window),
		TensorContent: o.grpc.tensorContent,
		TrustPriority: o.batching.trust,
		Release:       release,
	}, parts)
	s.served = make(chan error, len(s.listeners))
	for _, listener := range s.listeners {
		go func() { s.served <- s.Serve(listener) }()
	}
}

// failed tells of a listener that ended by itself; it is nil, and never ready, if gRPC is off.
func (s *grpcSide) failed() <-chan error {
	if s == nil {
		return nil
	}
	return s.served
}

// addresses are where clients find it, for the log.
func (s *grpcSide) addresses() (all []string) {
	if s != nil {
		for _, listener := range s.listeners {
			all = append(all, listener.Addr().String())
		}
	}
	return all
}

func (s *grpcSide) close() {
	for _, listener := range s.listeners {
		listener.Close()
	}
}

// drainBoth drains REST and gRPC at the same time.
func drainBoth(ctx context.Context, rest *server.Server, s *grpcSide, grace time.Duration) error {
	if s == nil {
		return rest.Drain(ctx, grace)
	}
	other := make(chan error, 1)
	go func() { other <- s.Drain(ctx, grace) }()
	return errors.Join(rest.Drain(ctx, grace), <-other)
}

// reloader takes the configuration of a HandleReloadConfigRequest. It stays in force until the next one, or until a config file is read.
type reloader struct{ repo *repository.Repository }

// Reload reads the message as its text would be read from a file, so that both mean the same and are refused alike.
func (r reloader) Reload(ctx context.Context, config *serving.ModelServerConfig) error {
	text, err := prototext.MarshalOptions{Multiline: true}.Marshal(config)
	if err != nil {
		return status.Errorf(status.InvalidArgument, "the configuration cannot be read: %v", err)
	}
	wanted, err := modelconfig.Parse("config", string(text))
	if err != nil {
		return status.Errorf(status.InvalidArgument, "%v", err)
	}
	err = r.repo.Reload(ctx, wanted)
	if known := (*status.Error)(nil); err != nil && !errors.As(err, &known) && ctx.Err() == nil {
		return status.Errorf(status.InvalidArgument, "%v", err)
	}
	return err
}
