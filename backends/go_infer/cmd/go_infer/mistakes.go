package main

import (
	"flag"
	"fmt"
	"strings"
	"time"
)

// elsewhere are flags of tensorflow_model_server (model_servers/main.cc) that are not here, and what to do instead: who moves has them
// in scripts. They are refused, for to ignore one would let its user believe that it is in effect.
var elsewhere = map[string]string{
	"allow_version_labels_for_unavailable_models": "leave it out; the labels of a new model may be given before their versions are loaded",
	"enable_grpc_healthcheck_service":             "leave it out; grpc.health.v1 is always served",
	"enable_model_warmup":                         "leave it out; recorded requests always warm a version",
	"enable_signature_method_name_check":          "leave it out; the method's name is always checked",
	"flush_filesystem_caches":                     "leave it out",
	"grpc_channel_arguments":                      "see --grpc_max_message and --grpc_max_concurrent_streams",
	"grpc_max_threads":                            "see --batch_workers and --max_queue, which bound what runs and what waits",
	"num_unload_threads":                          "leave it out",
	"per_process_gpu_memory_fraction":             "leave it out; models run on processors only",
	"rest_api_num_threads":                        "see --batch_workers and --max_queue, which bound what runs and what waits",
	"rest_api_timeout_in_ms":                      "see --http_write_timeout (30000 is 30s); a client may send X-Request-Timeout: 250ms",
	"saved_model_tags":                            `leave it out; the graph with the tag "serve" is served`,
	"ssl_config_file":                             "let the gateway in front speak TLS",
	"tensorflow_inter_op_parallelism":             "see --batch_workers: how many Runs there are at the same time",
	"tensorflow_session_parallelism":              "see --batch_workers and --tensorflow_intra_op_parallelism",
	"use_tflite_model":                            "leave it out; only SavedModels are served",
}

// explained says in our words what the flag package found: what there is instead of a flag, how a value is written.
func explained(f *flag.FlagSet, err error) error {
	said := err.Error()
	if name, unknown := strings.CutPrefix(said, "flag provided but not defined: -"); unknown {
		if instead, known := elsewhere[name]; known {
			return fmt.Errorf("there is no flag --%s as in TensorFlow Serving: %s", name, instead)
		}
		return fmt.Errorf("there is no flag --%s; see go_infer --help", name)
	}
	said, wrong := strings.CutSuffix(said, ": parse error")
	if at := strings.LastIndex(said, " -"); wrong && at > 0 {
		name := said[at+len(" -"):]
		return fmt.Errorf("--%s: %s: it must be %s", name, said[:strings.LastIndex(said[:at+1], " for ")], form(f.Lookup(name)))
	}
	return fmt.Errorf("%w; see go_infer --help", err)
}

// form is how the values of a flag are written.
func form(known *flag.Flag) string {
	switch known.Value.(flag.Getter).Get().(type) {
	case bool:
		return "true or false"
	case time.Duration:
		return "a time with its unit, as in 250ms or 5s"
	case float64:
		return "a number"
	}
	return "a whole number"
}
