package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"runtime"
	"time"

	"sluicegate/go_infer/internal/image"
)

// options are the command line, in TF-Serving's spelling where TF-Serving has the flag.
type options struct {
	host, modelName, modelBase     string
	port, maxBatch, workers, queue int
	intraOp, maxBody               int
	images                         image.Limits
	batching, exitWithParent       bool
	logRequests, version, link     bool
	drainTimeout, drainGrace       time.Duration
}

const usage = `go_infer serves a TensorFlow SavedModel over HTTP, in batches.

usage: go_infer --model_name NAME --model_base_path DIR [flags]

DIR holds one directory per version (DIR/1, DIR/2, ...), each a SavedModel; the highest answers unless a request names another.
Flags may be written with one dash or two, with a space or '='.

`

// parseFlags returns flag.ErrHelp after printing the help, or an error worth one line.
func parseFlags(arguments []string, help io.Writer) (options, error) {
	o := options{}
	f := flag.NewFlagSet("go_infer", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&o.modelName, "model_name", "default", "`name` of the model in URLs")
	f.StringVar(&o.modelBase, "model_base_path", "", "`directory` with the model's versions (required)")
	f.StringVar(&o.host, "rest_api_host", "127.0.0.1", "`address` to listen on; 0.0.0.0 for every interface")
	f.IntVar(&o.port, "rest_api_port", 8501, "`port` to listen on; 0 takes a free one and logs it")
	f.BoolVar(&o.batching, "enable_batching", true, "gather waiting requests into one Run")
	f.IntVar(&o.maxBatch, "max_batch", 32, "most `rows` in one Run; sizes in between are padded to a power of two")
	f.IntVar(&o.workers, "batch_workers", defaultWorkers(), "`number` of Runs at the same time")
	f.IntVar(&o.queue, "max_queue", 1024, "most `rows` that wait for a Run; beyond, requests are refused with 503")
	f.IntVar(&o.intraOp, "tensorflow_intra_op_parallelism", 1, "`threads` inside one operation")
	f.IntVar(&o.maxBody, "max_body", 16<<20, "largest request body, in `bytes`")
	f.IntVar(&o.images.Pixels, "max_image_pixels", 16<<20, "largest picture, in `pixels`")
	f.IntVar(&o.images.Workers, "image_workers", defaultWorkers(), "`number` of pictures decoded and resized at the same time")
	f.IntVar(&o.images.Waiting, "max_image_queue", 256, "most `pictures` that wait for a worker; beyond, requests are refused with 503")
	f.IntVar(&o.images.Pictures, "max_images", 128, "most `pictures` in one request")
	f.IntVar(&o.images.Tensor, "max_image_tensor", 64<<20, "largest tensor that the pictures of one request become, in `bytes`")
	f.DurationVar(&o.drainTimeout, "drain_timeout", 10*time.Second, "`time` that running requests get after SIGTERM")
	f.DurationVar(&o.drainGrace, "drain_grace", 250*time.Millisecond, "`time` after SIGTERM in which connections are still accepted")
	f.BoolVar(&o.exitWithParent, "exit_with_parent", false, "drain and exit when the process that started this one is gone")
	f.BoolVar(&o.link, "enable_link", true, "offer the gateway's multiplexed link on the same port")
	f.BoolVar(&o.logRequests, "log_requests", false, "log every request")
	f.BoolVar(&o.version, "version", false, "print versions and exit")
	err := f.Parse(arguments)
	if errors.Is(err, flag.ErrHelp) {
		_, _ = io.WriteString(help, usage)
		f.SetOutput(help)
		f.PrintDefaults()
		return o, err
	}
	switch {
	case err != nil:
		return o, fmt.Errorf("%w; see go_infer --help", err)
	case f.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q; see go_infer --help", f.Arg(0))
	case o.version:
		return o, nil
	case o.modelBase == "":
		return o, errors.New("--model_base_path is required; see go_infer --help")
	}
	for _, bound := range []struct {
		name             string
		value, low, high int
	}{
		{"rest_api_port", o.port, 0, 65535},
		{"max_batch", o.maxBatch, 1, 4096},
		{"batch_workers", o.workers, 1, 256},
		{"max_queue", o.queue, 1, 1 << 24},
		{"tensorflow_intra_op_parallelism", o.intraOp, 1, 127},
		{"max_body", o.maxBody, 1 << 10, 1 << 30},
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
	return o, nil
}

// defaultWorkers leaves half of the cores to HTTP and JSON: on small models that work is as large as the Runs.
func defaultWorkers() int { return max(1, runtime.GOMAXPROCS(0)/2) }
