package main

import (
	"flag"
	"fmt"
	"strconv"
	"strings"
	"time"

	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/modelconfig"
)

// batching are the flags of how requests are gathered into Runs.
type batching struct {
	enabled, padding         bool
	maxBatch, workers, queue int
	cores                    int
	queueBytes               int
	timeout, target          time.Duration
	sizes                    []int
	weights                  map[string]int
	file, priority           string
	trust, unchecked         bool
	apart                    map[string]bool // MODEL or MODEL:SIGNATURE
	maxRows, maxAnswer       int
	given                    map[string]bool // flags that the command line has
}

func (b *batching) flags(f *flag.FlagSet, workers int) {
	f.BoolVar(&b.enabled, "enable_batching", true, "gather waiting requests into one Run")
	f.BoolFunc("batch_check", "find out at load whether a signature treats its rows one by one, and do not batch it otherwise (default true)",
		func(text string) error {
			check, err := strconv.ParseBool(text)
			b.unchecked = !check
			return err
		})
	f.Func("batching_off", "`models`, as in ranker,digits:raw, or signatures of them whose requests each are a Run of their own", func(text string) error {
		b.apart = map[string]bool{}
		for each := range strings.SplitSeq(text, ",") {
			if each = strings.TrimSpace(each); each == "" || strings.HasPrefix(each, ":") {
				return fmt.Errorf("%q is not MODEL or MODEL:SIGNATURE", each)
			}
			b.apart[each] = true
		}
		return nil
	})
	f.IntVar(&b.maxRows, "max_rows", 1<<17, "most `rows` in one request")
	f.IntVar(&b.maxAnswer, "max_answer", 64<<20, "most `bytes` of one answer")
	f.StringVar(&b.file, "batching_parameters_file", "", "`file` with TF-Serving's batching parameters; flags that are given go before it")
	f.IntVar(&b.maxBatch, "max_batch", 32, "most `rows` in one Run; larger requests are divided")
	f.IntVar(&b.workers, "batch_workers", workers, "`number` of Runs at the same time, of all models together")
	f.IntVar(&b.queue, "max_queue", 1024, "most `rows` that wait for a Run, of each signature; beyond, requests are refused with 503")
	f.IntVar(&b.queueBytes, "max_queue_bytes", 256<<20, "most `bytes` of requests that wait for a Run, of each signature")
	f.DurationVar(&b.timeout, "batch_timeout", 0, "`time` for which a free slot waits for a full batch; 0: it takes what waits")
	f.Func("allowed_batch_sizes", "`sizes`, as in 1,8,32, to which batches are padded; the last must be max_batch (default: powers of two)",
		func(text string) (err error) {
			b.sizes, err = readSizes(text)
			return err
		})
	f.BoolVar(&b.padding, "batch_padding", true, "pad batches to allowed sizes; false: each Run has as many rows as there are")
	f.DurationVar(&b.target, "batch_latency_target", 0, "`time` that a Run may take; batches are made as small as that needs; 0: no target")
	f.Func("batch_weights", "`weights` of models, as in digits=3,faces=1: their shares of the Runs' time when all have work (default: equal)",
		func(text string) (err error) {
			b.weights, err = readWeights(text)
			return err
		})
	f.StringVar(&b.priority, "priority_header", "X-Priority", "`header` in which requests say critical, default or batch; empty: in none")
	f.BoolVar(&b.trust, "trust_client_priority", false, "believe requests that they are critical; else they can only say that they may wait longer")
}

func readSizes(text string) ([]int, error) {
	var sizes []int
	for each := range strings.SplitSeq(text, ",") {
		size, err := strconv.Atoi(strings.TrimSpace(each))
		if err != nil {
			return nil, fmt.Errorf("%q is not a number of rows", each)
		}
		sizes = append(sizes, size)
	}
	return sizes, nil
}

func readWeights(text string) (map[string]int, error) {
	weights := map[string]int{}
	for each := range strings.SplitSeq(text, ",") {
		name, number, _ := strings.Cut(strings.TrimSpace(each), "=")
		weight, err := strconv.Atoi(number)
		if err != nil || name == "" || weight < 1 || weight > 1000 {
			return nil, fmt.Errorf("%q is not NAME=WEIGHT with a weight of 1..1000", each)
		}
		weights[name] = weight
	}
	return weights, nil
}

// resolve joins the flags with the batching parameters file, and checks both.
func (b *batching) resolve(f *flag.FlagSet) error {
	b.given = map[string]bool{}
	f.Visit(func(each *flag.Flag) { b.given[each.Name] = true })
	if b.file != "" {
		if err := b.read(); err != nil {
			return err
		}
	}
	for _, bound := range []struct {
		name             string
		value, low, high int
	}{
		{"max_batch", b.maxBatch, 1, modelconfig.MostRows},
		{"batch_workers", b.workers, 1, modelconfig.MostThreads},
		{"max_rows", b.maxRows, 1, modelconfig.MostQueued},
		{"max_answer", b.maxAnswer, 1 << 10, 1 << 40},
		{"max_queue", b.queue, 1, modelconfig.MostQueued},
		{"max_queue_bytes", b.queueBytes, 1 << 10, 1 << 40},
	} {
		if bound.value < bound.low || bound.value > bound.high {
			return fmt.Errorf("--%s=%d is out of range; it must be %d..%d", bound.name, bound.value, bound.low, bound.high)
		}
	}
	for _, bound := range []struct {
		name  string
		value time.Duration
	}{{"batch_timeout", b.timeout}, {"batch_latency_target", b.target}} {
		if bound.value < 0 || bound.value > modelconfig.MostTimeout {
			return fmt.Errorf("--%s=%s is out of range; it must be 0s..%s", bound.name, bound.value, modelconfig.MostTimeout)
		}
	}
	if err := batch.CheckSizes(b.sizes, b.maxBatch); err != nil {
		return fmt.Errorf("--allowed_batch_sizes: %w", err)
	}
	if b.sizes != nil && !b.padding {
		return fmt.Errorf("--allowed_batch_sizes means nothing with --batch_padding=false; remove one of them")
	}
	return nil
}

func (b *batching) read() error {
	if !b.enabled {
		return fmt.Errorf("--batching_parameters_file means nothing with --enable_batching=false; remove one of them")
	}
	file, err := modelconfig.ReadBatching(b.file)
	if err != nil {
		return err
	}
	if file.MaxBatch != nil && !b.given["max_batch"] {
		b.maxBatch = *file.MaxBatch
	}
	if file.Threads != nil && !b.given["batch_workers"] {
		b.workers = *file.Threads
	}
	if file.Timeout != nil && !b.given["batch_timeout"] {
		b.timeout = *file.Timeout
	}
	if file.Sizes != nil && !b.given["allowed_batch_sizes"] {
		b.sizes = file.Sizes
	}
	if file.Enqueued != nil && !b.given["max_queue"] {
		b.queue = min(*file.Enqueued, modelconfig.MostQueued/b.maxBatch) * b.maxBatch
	}
	return nil
}

// alone is why the flags want a signature's requests to run one by one; empty: they do not.
func (b *batching) alone(model, signature string) string {
	if b.apart[model] || b.apart[model+":"+signature] {
		return "--batching_off says so"
	}
	return ""
}

// limits are what the flags mean for one signature. Runs that share slots do so through share.
func (b *batching) limits(share *batch.Share) batch.Limits {
	return batch.Limits{
		MaxBatch: b.maxBatch, MaxQueue: b.queue, MaxBytes: b.queueBytes, Slots: b.slots(), Coalesce: b.enabled,
		Sizes: b.sizes, Exact: !b.padding, Delay: b.timeout, Target: b.target, Share: share,
	}
}

// slots is how many Runs there are at a time. Without batches nothing else bounds how many run, so every core may.
func (b *batching) slots() int {
	if !b.enabled {
		return max(b.workers, b.cores)
	}
	return b.workers
}
