// Command go_infer serves TensorFlow SavedModels over HTTP.
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
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"sluicegate/go_infer/internal/api"
	"sluicegate/go_infer/internal/api/control"
	"sluicegate/go_infer/internal/api/oip"
	"sluicegate/go_infer/internal/api/simple"
	"sluicegate/go_infer/internal/api/tfserving"
	"sluicegate/go_infer/internal/image"
	"sluicegate/go_infer/internal/link"
	"sluicegate/go_infer/internal/listen"
	"sluicegate/go_infer/internal/machine"
	"sluicegate/go_infer/internal/metrics"
	"sluicegate/go_infer/internal/modelconfig"
	"sluicegate/go_infer/internal/panics"
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
	log := slog.New(slog.NewJSONHandler(diagnostics, nil))
	slog.SetDefault(log)
	if err := serve(o, log); err != nil {
		fmt.Fprintln(diagnostics, "go_infer:", err)
		return 1
	}
	return 0
}

// serve is the composition root: it makes every part, runs them, and takes them down in the reverse order.
func serve(o options, log *slog.Logger) error {
	session.TameMalloc()
	session.SetPauses(o.pauses)
	stop := make(chan os.Signal, 2)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	if o.exitWithParent {
		go whenOrphaned(os.Getppid(), func() { stop <- syscall.SIGTERM })
	}

	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)

	if o.schedBatch {
		if err := machine.Batch(); err != nil {
			return fmt.Errorf("--sched_batch: %w", err)
		}
	}
	runtime.GOMAXPROCS(o.machine.Procs + machine.Spare)
	defer reserve(o.heapReserve)()
	scrape, err := o.scrapePath()
	if err != nil {
		return err
	}
	listener, err := listen.TCP(o.host, o.port, "rest_api_port")
	if err != nil {
		return err
	}
	grpc, err := listenGRPC(&o.grpc, log)
	if err != nil {
		return err
	}
	log.Info("starting", "release", release, "tensorflow", session.Version(), "go", runtime.Version(), "gomaxprocs", runtime.GOMAXPROCS(0),
		"batch_workers", o.batching.slots(), "intra_op", o.intraOp, "max_batch", o.batching.maxBatch, "batching", o.batching.enabled, "listen", listener.Addr().String(), "grpc", grpc.addresses(),
		"why", o.machine.Reason)

	registry, pool := metrics.New(), tensor.NewPool()
	var repo *repository.Repository
	load, closing := loader(&o, func() bool { return repo.Serves() }, registry, pool, log)
	remotes, err := o.remote.catalog(registry, log, func() { repo.Look() })
	if err != nil {
		return err
	}
	defer remotes.Close()
	repo = o.repository(load, closing, remotes, registry, log)
	config := &configuration{flags: &o.lifecycle, repo: repo, log: log, look: remotes.Look}
	registry.Gauge("go_infer_live_tensors", "TensorFlow tensors that exist.", func() float64 { return float64(session.Live()) })
	registry.Counter("go_infer_load_paused_seconds_total", "Time that loads and unloads paused for those who serve.", func() float64 { return session.Paused().Seconds() })
	registry.Gauge("go_infer_live_slabs", "Pieces of tensor memory handed out.", func() float64 { return float64(pool.Live()) })
	registry.Counter("go_infer_panics_total", "Panics of one request, copy, Run or load that were stopped; the log has their stacks.", func() float64 { return float64(panics.Count()) })
	images := image.NewStage(o.images)
	registry.Gauge("go_infer_images_working", "Pictures being decoded and resized.", func() float64 { return float64(images.Working()) })
	registry.Gauge("go_infer_images_waiting", "Pictures that wait for an image worker.", func() float64 { return float64(images.Waiting()) })
	registry.Gauge("go_infer_model_bytes", "Memory that loaded models are reckoned to take.", func() float64 { return float64(repo.Memory()) })
	registry.Gauge("go_infer_config_good", "1 if the config files are in effect as they are, 0 if they were refused.", config.good)
	bodies := api.NewBudget(o.maxBodies)
	registry.Gauge("go_infer_body_bytes", "Bytes of request bodies that are held.", func() float64 { return float64(bodies.Held()) })
	limits := api.Limits{MaxBody: o.maxBody, Bodies: bodies, Answer: o.batching.maxAnswer, GzipFrom: o.gzipFrom, Priority: o.batching.priority, TrustPriority: o.batching.trust}
	s := &server.Server{
		TFServing: &tfserving.Handler{Repository: repo, Limits: limits, Registry: registry},
		OIP:       &oip.Handler{Repository: repo, Limits: limits, Release: release, Control: o.control(repo)},
		Simple:    &simple.Handler{Repository: repo, Limits: limits, Images: images},
		Registry:  registry, Log: log, HTTP: o.http.limits, LogEach: o.logRequests, Scrape: scrape,
	}
	spans, flush, err := o.tracing.sinks(func(name string) bool { return o.given[name] }, registry, log)
	if err != nil {
		return err
	}
	s.Spans = spans
	s.Load = func() server.Load { return busy(registry, o.batching.slots()*o.batching.maxBatch) }
	if o.link {
		s.Link = links(s, registry, log)
	}
	s.Prepare()
	served := make(chan error, 2)
	go func() { served <- s.Serve(listener) }()
	if grpc != nil {
		grpc.serve(&o, s, repo, o.control(repo), bodies, registry, log)
	}
	if o.socket != "" {
		socket, err := listen.Unix(o.socket)
		if err != nil {
			return err
		}
		go func() { served <- s.Serve(socket) }()
	}
	for _, p := range []struct {
		port    int
		flag    string
		handler http.Handler
	}{
		{o.controlPort, "control_port", operators(repo, s, func() error { return config.apply(true) })},
		{o.debugPort, "debug_port", profiles()},
	} {
		if p.port < 0 {
			continue
		}
		end, err := private(p.port, p.flag, p.handler, log)
		if err != nil {
			return err
		}
		defer end()
	}

	if err := session.MakePools(o.intraOp); err != nil {
		return err
	}
	if err := config.apply(true); err != nil {
		return err
	}
	watching, unwatch := context.WithCancel(context.Background())
	defer unwatch()
	go config.watch(watching, hangup)
	loaded := make(chan error, 1)
	go func() { loaded <- repo.Settle(watching) }()
	for {
		select {
		case err := <-loaded:
			if err != nil {
				return err
			}
			s.Ready()
			log.Info("ready", "listen", listener.Addr().String(), "grpc", grpc.addresses())
		case err := <-served:
			if !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("the listener failed: %w", err)
			}
		case err := <-grpc.failed():
			return fmt.Errorf("the gRPC listener failed: %w", err)
		case reason := <-stop:
			return drain(o, s, grpc, flush, repo, pool, log, reason, stop)
		}
	}
}

// operators are the private listener's paths: the operators' API, and the Open Inference Protocol's, whose repository control is always
// allowed here.
func operators(repo *repository.Repository, s *server.Server, reload func() error) http.Handler {
	private := *s.OIP
	private.Control = repo
	mux := http.NewServeMux()
	mux.Handle("/", control.Handler(repo, reload))
	mux.HandleFunc(oip.Prefix+"/", func(w http.ResponseWriter, r *http.Request) { private.Serve(w, r) })
	return mux
}

// control is who loads and unloads models by request: nobody, unless the flag allows it.
func (o *options) control(repo *repository.Repository) oip.Control {
	if !o.modelControl {
		return nil
	}
	return repo
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

// scrapePath is where metrics are beside /metrics.
func (o *options) scrapePath() (string, error) {
	if o.monitoring == "" {
		return modelconfig.MonitoringPath, nil
	}
	text, err := os.ReadFile(o.monitoring)
	if err != nil {
		return "", fmt.Errorf("--monitoring_config_file: %w", err)
	}
	m, err := modelconfig.ParseMonitoring(o.monitoring, string(text))
	if err != nil || !m.Enabled {
		return "", err
	}
	return m.Path, nil
}

// oneSignal is for how long repeated signals count as one: supervisors and terminals send several to the same end.
const oneSignal = time.Second

// lastMoment is for what is left to do when a drain's time is up. A Run of TensorFlow, as loads have them too, cannot be ended: it is left.
const lastMoment = 500 * time.Millisecond

// lastSpans is for what the collector has not taken when the requests are answered. One that is gone does not hold the stop up.
const lastSpans = 2 * time.Second

// drain finishes what runs, within the timeout. Whoever that cuts off is told of in the log, and is no failure of this process (docs/adr/0048).
// A second signal, a while after the first, ends the process at once, and is one.
func drain(o options, s *server.Server, grpc *grpcSide, flush func(context.Context), repo *repository.Repository, pool *tensor.Pool, log *slog.Logger, reason os.Signal,
	stop <-chan os.Signal) error {
	log.Info("draining", "reason", reason.String(), "timeout", o.drainTimeout.String())
	ctx, cancel := context.WithTimeout(context.Background(), o.drainTimeout)
	defer cancel()
	finished := make(chan error, 1)
	go func() {
		err := drainBoth(ctx, s, grpc, o.drainGrace)
		if err == nil {
			told, done := context.WithTimeout(ctx, lastSpans)
			flush(told)
			done()
			repo.Close()
			pool.Drain()
		}
		finished <- err
	}()
	over := time.NewTimer(o.drainTimeout + lastMoment)
	defer over.Stop()
	for begun := time.Now(); ; {
		select {
		case <-over.C:
			log.Warn("stopped; what was being loaded or unloaded could not be ended in time", "timeout", o.drainTimeout.String())
			return nil
		case err := <-finished:
			cut := s.CutOff()
			if grpc != nil {
				cut = cut.Plus(grpc.CutOff())
			}
			if cut.Arriving+cut.Answering > 0 {
				log.Warn("requests were cut off", "arriving", cut.Arriving, "answering", cut.Answering, "timeout", o.drainTimeout.String())
			} else if err != nil {
				log.Warn("the drain's time was up; what still ran was for nobody", "timeout", o.drainTimeout.String())
			}
			log.Info("stopped", "live_tensors", session.Live(), "live_slabs", pool.Live())
			return nil
		case second := <-stop:
			if time.Since(begun) < oneSignal {
				continue
			}
			return fmt.Errorf("stopped at once by a second signal (%s); requests may have been cut off", second)
		}
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
