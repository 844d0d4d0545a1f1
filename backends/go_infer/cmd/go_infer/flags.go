package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"time"
)

// options are the command line, in TF-Serving's spelling where TF-Serving has the flag.
type options struct {
	host, modelName, modelBase string
	port                       int
	intraOp, maxBody           int
	maxPixels                  int
	exitWithParent             bool
	logRequests, version, link bool
	drainTimeout, drainGrace   time.Duration
	batching                   batching
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
	o.batching.flags(f)
	f.IntVar(&o.intraOp, "tensorflow_intra_op_parallelism", 1, "`threads` inside one operation")
	f.IntVar(&o.maxBody, "max_body", 16<<20, "largest request body, in `bytes`")
	f.IntVar(&o.maxPixels, "max_image_pixels", 16<<20, "largest picture, in `pixels`")
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
		{"tensorflow_intra_op_parallelism", o.intraOp, 1, 127},
		{"max_body", o.maxBody, 1 << 10, 1 << 30},
		{"max_image_pixels", o.maxPixels, 1 << 10, 1 << 28},
	} {
		if bound.value < bound.low || bound.value > bound.high {
			return o, fmt.Errorf("--%s=%d is out of range; it must be %d..%d", bound.name, bound.value, bound.low, bound.high)
		}
	}
	return o, o.batching.resolve(f)
}
