package grpcserver

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/grpcserver/rpc"
	"sluicegate/go_infer/internal/metrics"
	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/modelconfig"
	"sluicegate/go_infer/internal/repository"
	"sluicegate/go_infer/internal/session"
	"sluicegate/go_infer/internal/tensor"
	"sluicegate/go_infer/internal/testmodels"
)

// running is a server on a real connection, and a client of it.
type running struct {
	*Server
	address string
	conn    *grpc.ClientConn
	repo    *repository.Repository
	pool    *tensor.Pool
	parts   *Parts
}

// place is a model to serve: its directory, and its versions.
type place struct {
	base     string
	versions []int64
}

func digits(t testing.TB) map[string]place {
	return map[string]place{"digits": {filepath.Join(testmodels.Directory(t), "digits"), []int64{1, 2}}}
}

func probes(t testing.TB) map[string]place {
	all := map[string]place{}
	for _, name := range []string{"strings", "types", "iris"} {
		all[name] = place{filepath.Join(testmodels.Probes(t), name), []int64{1}}
	}
	return all
}

// start serves models until the test ends, and then holds it to having freed everything.
func start(t testing.TB, models map[string]place, limits batch.Limits, adjust ...func(*Options, *Parts)) *running {
	t.Helper()
	r := &running{pool: tensor.NewPool()}
	registry := metrics.New()
	r.repo = repository.New(repository.Options{Load: func(name string, version int64, directory string) (*model.Model, error) {
		return model.Load(name, version, directory, model.Options{Limits: limits, IntraOp: 1, Pool: r.pool, Events: registry.Model(name, version)})
	}})
	config := modelconfig.Config{}
	for name, p := range models {
		config.Models = append(config.Models, modelconfig.Model{Name: name, BasePath: p.base, Policy: modelconfig.Policy{Specific: p.versions}})
	}
	if err := r.repo.Reload(context.Background(), config); err != nil && len(models) > 0 {
		t.Fatal(err)
	}
	options := Options{MaxMessage: 8 << 20, MaxStreams: 256, Window: 1 << 20, Release: "1.2.3"}
	r.parts = &Parts{Models: r.repo, Ready: func() bool { return true }, Around: &rpc.Around{Registry: registry, Pushback: time.Second}}
	for _, change := range adjust {
		change(&options, r.parts)
	}
	r.Server = New(options, *r.parts)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.address = listener.Addr().String()
	served := make(chan error, 1)
	go func() { served <- r.Serve(listener) }()
	r.conn = r.dial(t)
	t.Cleanup(func() {
		r.Stop()
		if err := <-served; err != nil {
			t.Errorf("Serve returned %v", err)
		}
		r.repo.Close()
		if r.pool.Live() != 0 || session.Live() != 0 {
			t.Errorf("leaked %d slabs and %d TensorFlow tensors", r.pool.Live(), session.Live())
		}
		r.pool.Drain()
	})
	return r
}

// dial makes another connection.
func (r *running) dial(t testing.TB) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+r.address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30), grpc.MaxCallSendMsgSize(1<<30)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

var usual = batch.Limits{MaxBatch: 32, MaxQueue: 1024, Slots: 1, Coalesce: true}

func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// ask makes one call and fails the test if it is refused.
func ask[Out any, POut interface {
	*Out
	proto.Message
}](t testing.TB, r *running, method string, in proto.Message, options ...grpc.CallOption) POut {
	t.Helper()
	out := POut(new(Out))
	if err := r.conn.Invoke(soon(t), method, in, out, options...); err != nil {
		t.Fatalf("%s: %v", method, err)
	}
	return out
}

// refused makes one call, which must be refused with that code and text.
func refused(t testing.TB, r *running, method string, in, out proto.Message, code codes.Code, text string) {
	t.Helper()
	said := grpcstatus.Convert(r.conn.Invoke(soon(t), method, in, out))
	if said.Code() != code || said.Message() != text {
		t.Errorf("%s\n said %v %q\nwants %v %q", method, said.Code(), said.Message(), code, text)
	}
}
