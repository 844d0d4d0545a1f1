package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"sluicegate/go_infer/internal/image"
	"sluicegate/go_infer/internal/machine"
)

// options are the command line, in TF-Serving's spelling where TF-Serving has the flag.
type options struct {
	lifecycle
	host, socket, monitoring   string
	tracing                    tracing
	given                      map[string]bool // flags that the command line has
	controlPort, debugPort     int
	machine                    machine.Choice
	port, intraOp              int
	maxBody, maxBodies         int
	images                     image.Limits
	gzipFrom, heapReserve      int
	exitWithParent             bool
	schedBatch                 bool
	logRequests, version, link bool
	modelControl               bool
	trimLibraries              bool
	drainTimeout, drainGrace   time.Duration
	batching                   batching
	grpc                       grpcOptions
	http                       httpOptions
}

const usage = `go_infer serves TensorFlow SavedModels over HTTP and gRPC, in batches.

usage: go_infer --model_name NAME --model_base_path DIR [flags]
       go_infer --model_config_file FILE [flags]

DIR holds one directory per version (DIR/1, DIR/2, ...), each a SavedModel; the highest is served. New versions are found, loaded aside
and take over without a gap. FILE names many models, in TensorFlow Serving's format; SIGHUP reads it again.
Flags may be written with one dash or two, with a space or '='.

`

// parseFlags returns flag.ErrHelp after printing the help, or an error worth one line.
func parseFlags(arguments []string, help io.Writer) (options, error) {
	o := options{}
	f := flag.NewFlagSet("go_infer", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	o.machine = machine.Choose(machine.CPUs(), machine.Quota(os.DirFS("/")))
	o.register(f)
	f.StringVar(&o.host, "rest_api_host", "127.0.0.1", "`address` to listen on; 0.0.0.0 for every interface")
	f.IntVar(&o.port, "rest_api_port", 8501, "`port` to listen on; 0 takes a free one and logs it")
	f.StringVar(&o.socket, "rest_api_socket_path", "", "`path` of a Unix socket to listen on, too")
	f.StringVar(&o.monitoring, "monitoring_config_file", "", "`file` that says where metrics are (TF-Serving's prometheus_config)")
	o.tracing.register(f)
	f.IntVar(&o.controlPort, "control_port", -1, "`port` on 127.0.0.1 for operators: rollback, labels, traffic, reload; 0 takes a free one, -1: none")
	f.IntVar(&o.debugPort, "debug_port", -1, "`port` on 127.0.0.1 for Go's profiles (/debug/pprof); 0 takes a free one, -1: none")
	o.batching.cores = o.machine.Procs
	o.batching.flags(f, o.machine.Runs)
	f.IntVar(&o.intraOp, "tensorflow_intra_op_parallelism", o.machine.IntraOp, "`threads` inside one operation")
	f.IntVar(&o.maxBody, "max_body", 16<<20, "largest request body, in `bytes`")
	f.IntVar(&o.maxBodies, "max_bodies", 512<<20, "most `bytes` of all request bodies and gRPC messages that are held at the same time; beyond, requests are refused with 503 or UNAVAILABLE")
	f.IntVar(&o.gzipFrom, "gzip_from", 16<<10, "`bytes` of an answer from which it is gzipped for clients that ask; 0 never")
	f.IntVar(&o.heapReserve, "heap_reserve", 8<<20, "`bytes` of Go's heap that are reckoned as in use, so that garbage is collected less often")
	f.BoolVar(&o.trimLibraries, "trim_libraries", true, "after the first load give back the memory of those pages of TensorFlow's libraries that starting and loading needed and serving does not")
	f.IntVar(&o.images.Pixels, "max_image_pixels", 16<<20, "largest picture, in `pixels`")
	f.IntVar(&o.images.Workers, "image_workers", o.machine.Runs, "`number` of pictures decoded and resized at the same time")
	f.IntVar(&o.images.Waiting, "max_image_queue", 256, "most `pictures` that wait for a worker; beyond, requests are refused with 503")
	f.IntVar(&o.images.Pictures, "max_images", 128, "most `pictures` in one request")
	f.IntVar(&o.images.Tensor, "max_image_tensor", 64<<20, "largest tensor that the pictures of one request become, in `bytes`")
	f.DurationVar(&o.drainTimeout, "drain_timeout", 10*time.Second, "`time` that running requests get after SIGTERM")
	f.DurationVar(&o.drainGrace, "drain_grace", 250*time.Millisecond, "`time` after SIGTERM in which connections are still accepted")
	f.BoolVar(&o.exitWithParent, "exit_with_parent", false, "drain and exit when the process that started this one is gone")
	f.BoolVar(&o.schedBatch, "sched_batch", false, "have the kernel (Linux) schedule the server as batch work: more requests/s on busy processors, later answers beside other work")
	f.BoolVar(&o.link, "enable_link", true, "offer the gateway's multiplexed link on the same port")
	f.BoolVar(&o.modelControl, "allow_model_control", false, "let requests on the public ports change what is served: load and unload of the Open Inference Protocol, HandleReloadConfigRequest")
	f.BoolVar(&o.logRequests, "log_requests", false, "log every request")
	f.BoolVar(&o.version, "version", false, "print versions and exit")
	o.http.register(f)
	o.grpc.register(f)
	err := f.Parse(arguments)
	o.grpc.parsed(f, o.host)
	o.given = map[string]bool{}
	f.Visit(func(each *flag.Flag) { o.given[each.Name] = true })
	if errors.Is(err, flag.ErrHelp) {
		_, _ = io.WriteString(help, usage)
		f.SetOutput(help)
		f.PrintDefaults()
		return o, err
	}
	switch {
	case err != nil:
		return o, explained(f, err)
	case f.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q; see go_infer --help", f.Arg(0))
	case o.version:
		return o, nil
	}
	if o.drainTimeout < 0 || o.drainGrace < 0 {
		return o, fmt.Errorf("--drain_timeout=%s and --drain_grace=%s cannot be negative", o.drainTimeout, o.drainGrace)
	}
	if o.port > 0 && o.given["port"] && o.port == o.grpc.port && o.host == o.grpc.host {
		return o, fmt.Errorf("--rest_api_port and --port are both %d; HTTP and gRPC listen on ports of their own", o.port)
	}
	if err := errors.Join(o.check(), o.tracing.check(), o.http.check()); err != nil {
		return o, err
	}
	for _, bound := range []struct {
		name             string
		value, low, high int
	}{
		{"rest_api_port", o.port, 0, 65535},
		{"port", o.grpc.port, noGRPC, 65535},
		{"grpc_max_message", o.grpc.maxMessage, 1 << 10, 1 << 30},
		{"grpc_max_concurrent_streams", o.grpc.maxStreams, 1, 1 << 20},
		{"grpc_window", o.grpc.window, 64 << 10, 1 << 30},
		{"control_port", o.controlPort, -1, 65535},
		{"debug_port", o.debugPort, -1, 65535},
		{"tensorflow_intra_op_parallelism", o.intraOp, 1, 127},
		{"max_body", o.maxBody, 1 << 10, 1 << 30},
		{"max_bodies", o.maxBodies, o.maxBody, 1 << 40},
		{"gzip_from", o.gzipFrom, 0, 1 << 30},
		{"heap_reserve", o.heapReserve, 0, 1 << 30},
		{"max_image_pixels", o.images.Pixels, 1 << 10, 1 << 28},
		{"image_workers", o.images.Workers, 1, 256},
		{"max_image_queue", o.images.Waiting, 0, 1 << 20},
		{"max_images", o.images.Pictures, 1, 4096},
		{"max_image_tensor", o.images.Tensor, 1 << 10, 1 << 30},
	} {
		if bound.value < bound.low || bound.value > bound.high {
			return o, fmt.Errorf("--%s=%d is out of range; it must be %d..%d", bound.name, bound.value, bound.low, bound.high)
		}
	}
	return o, o.batching.resolve(f)
}
