// Command go_infer serves a TensorFlow SavedModel over HTTP.
//
// Exit codes: 0 stopped on request, 1 failed (one line on stderr says why), 2 wrong usage.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"sluicegate/go_infer/internal/api"
	"sluicegate/go_infer/internal/api/simple"
	"sluicegate/go_infer/internal/api/tfserving"
	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/image"
	"sluicegate/go_infer/internal/link"
	"sluicegate/go_infer/internal/metrics"
	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/repository"
	"sluicegate/go_infer/internal/server"
	"sluicegate/go_infer/internal/session"
	"sluicegate/go_infer/internal/tensor"
)

// release is this server's own version.
const release = "0.1.0"

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(arguments []string, out, diagnostics io.Writer) int {
	o, err := parseFlags(arguments, out)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(diagnostics, "go_infer:", err)
		return 2
	case o.version:
		fmt.Fprintf(out, "go_infer %s (TensorFlow %s, %s)\n", release, session.Version(), runtime.Version())
		return 0
	}
	if err := serve(o, slog.New(slog.NewJSONHandler(diagnostics, nil))); err != nil {
		fmt.Fprintln(diagnostics, "go_infer:", err)
		return 1
	}
	return 0
}

// serve is the composition root: it makes every part, runs them, and takes them down in the reverse order.
func serve(o options, log *slog.Logger) error {
	session.TameMalloc()
	stop := make(chan os.Signal, 2)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	if o.exitWithParent {
		go whenOrphaned(os.Getppid(), func() { stop <- syscall.SIGTERM })
	}

	base, err := filepath.Abs(o.modelBase)
	if err != nil {
		return err
	}
	places, err := repository.Scan(base)
	if err != nil {
		return err
	}
	address := net.JoinHostPort(o.host, strconv.Itoa(o.port))
	listener, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("port %d on %s is in use; stop what listens there or choose another with --rest_api_port", o.port, o.host)
	} else if err != nil {
		return fmt.Errorf("cannot listen on %s: %w", address, err)
	}
	log.Info("starting", "release", release, "tensorflow", session.Version(), "go", runtime.Version(), "gomaxprocs", runtime.GOMAXPROCS(0),
		"batch_workers", o.workers, "max_batch", o.maxBatch, "batching", o.batching, "listen", listener.Addr().String())

	registry, pool, repo := metrics.New(), tensor.NewPool(), repository.New()
	registry.Gauge("go_infer_live_tensors", "TensorFlow tensors that exist.", func() float64 { return float64(session.Live()) })
	registry.Gauge("go_infer_live_slabs", "Pieces of tensor memory handed out.", func() float64 { return float64(pool.Live()) })
	images := image.NewStage(o.images)
	registry.Gauge("go_infer_images_working", "Pictures being decoded and resized.", func() float64 { return float64(images.Working()) })
	registry.Gauge("go_infer_images_waiting", "Pictures that wait for an image worker.", func() float64 { return float64(images.Waiting()) })
	repo.Announce(o.modelName, places)
	limits := api.Limits{MaxBody: o.maxBody}
	s := &server.Server{
		TFServing: &tfserving.Handler{Repository: repo, Limits: limits},
		Simple:    &simple.Handler{Repository: repo, Limits: limits, Images: images},
		Registry:  registry, Log: log, LogEach: o.logRequests,
	}
	slots := o.limits()
	s.Load = func() server.Load { return busy(registry, slots.Slots*slots.MaxBatch) }
	if o.link {
		s.Link = links(s, registry, log)
	}
	s.Prepare()
	served := make(chan error, 1)
	go func() { served <- s.Serve(listener) }()

	loaded := make(chan error, 1)
	go func() { loaded <- load(o, places, repo, registry, pool, log) }()
	for {
		select {
		case err := <-loaded:
			if err != nil {
				return err
			}
			s.Ready()
			log.Info("ready", "listen", listener.Addr().String())
		case err := <-served:
			if !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("the listener failed: %w", err)
			}
		case reason := <-stop:
			return drain(o, s, repo, pool, log, reason, stop)
		}
	}
}

// busy is the load as load reports tell it. What waits is counted in rows, of which a request can have several; what is in flight, in
// requests, those that wait among them.
func busy(registry *metrics.Registry, capacity int) server.Load {
	inFlight := max(0, int(registry.InFlight()))
	waiting := min(registry.Waiting(), inFlight)
	return server.Load{Waiting: waiting, Running: inFlight - waiting, Capacity: capacity}
}

// links makes the link's side of the server, and its metrics.
func links(s *server.Server, registry *metrics.Registry, log *slog.Logger) *link.Server {
	l := link.New(s, log, func() link.Load {
		load := s.Load()
		return link.Load{Queued: uint32(load.Waiting), Running: uint32(load.Running), Capacity: uint32(load.Capacity)}
	})
	registry.Gauge("go_infer_links", "Open links.", func() float64 { return float64(l.Links()) })
	registry.Gauge("go_infer_link_streams", "Requests being answered on links.", func() float64 { return float64(l.Streams()) })
	registry.Counter("go_infer_link_streams_total", "Requests that came on links.", func() float64 { return float64(l.Total()) })
	registry.Counter("go_infer_link_cancelled_total", "Streams that the gateway gave up.", func() float64 { return float64(l.Cancelled()) })
	registry.Counter("go_infer_link_violations_total", "Links that ended because the peer broke the protocol.",
		func() float64 { return float64(l.Violations()) })
	return l
}

// load loads every version; one that fails is logged and left out. An error means that nothing can be served.
func load(o options, places []repository.Place, repo *repository.Repository, registry *metrics.Registry, pool *tensor.Pool,
	log *slog.Logger) error {
	usable := 0
	var last error
	for _, place := range places {
		counters := registry.Model(o.modelName, place.Number)
		loader := func(name string, version int64, directory string) (*model.Model, error) {
			return model.Load(name, version, directory, model.Options{Limits: o.limits(), IntraOp: o.intraOp, Pool: pool, Events: counters})
		}
		version, err := repo.Load(o.modelName, place, loader)
		if err != nil {
			last = err
			log.Error("model not loaded", "model", o.modelName, "version", place.Number, "error", err.Error())
			continue
		}
		usable++
		counters.Queue(version.Model.Waiting)
		log.Info("model loaded", "model", o.modelName, "version", place.Number, "ms", version.Took.Milliseconds(),
			"signatures", version.Model.SignatureNames())
	}
	if usable == 0 {
		return fmt.Errorf("no version of model %s can be served; the last failure: %w", o.modelName, last)
	}
	return nil
}

func (o *options) limits() batch.Limits {
	limits := batch.Limits{MaxBatch: o.maxBatch, MaxQueue: o.queue, Slots: o.workers, Coalesce: o.batching}
	if !o.batching {
		limits.Slots = max(limits.Slots, runtime.GOMAXPROCS(0)) // nothing else bounds how many run
	}
	return limits
}

// drain finishes what runs, within the timeout; a second signal ends the process at once.
func drain(o options, s *server.Server, repo *repository.Repository, pool *tensor.Pool, log *slog.Logger, reason os.Signal,
	stop <-chan os.Signal) error {
	log.Info("draining", "reason", reason.String(), "timeout", o.drainTimeout.String())
	ctx, cancel := context.WithTimeout(context.Background(), o.drainTimeout)
	defer cancel()
	finished := make(chan error, 1)
	go func() {
		err := s.Drain(ctx, o.drainGrace)
		if err == nil {
			repo.Close()
			pool.Drain()
		}
		finished <- err
	}()
	select {
	case err := <-finished:
		if err != nil {
			return fmt.Errorf("requests were still running after --drain_timeout=%s", o.drainTimeout)
		}
		log.Info("stopped", "live_tensors", session.Live(), "live_slabs", pool.Live())
		return nil
	case second := <-stop:
		return fmt.Errorf("stopped at once by a second signal (%s); requests may have been cut off", second)
	}
}

// whenOrphaned calls back once the parent is gone. It asks four times a second, because the kernel's own notice (PR_SET_PDEATHSIG)
// comes when the parent's *thread* ends: a launcher that starts servers from a short-lived thread would kill them.
func whenOrphaned(parent int, callback func()) {
	for os.Getppid() == parent && parent != 1 {
		time.Sleep(250 * time.Millisecond)
	}
	callback()
}
