package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/metrics"
	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/modelconfig"
	"sluicegate/go_infer/internal/repository"
	"sluicegate/go_infer/internal/tensor"
)

// lifecycle are the flags that say which models are served and how they come and go.
type lifecycle struct {
	modelName, modelBase, configFile, trafficFile string
	configPoll, filePoll                          float64 // seconds, as in TF-Serving
	settle, lazyWait                              time.Duration
	retries, loads, nice                          int
	pauses                                        float64
	patience, madeUp                              time.Duration
	retryMicros, budget                           int64
	lazy                                          bool
	stay                                          repository.Stay
	remote                                        remoteOptions
}

func (l *lifecycle) register(f *flag.FlagSet) {
	f.StringVar(&l.modelName, "model_name", "default", "`name` of the model in URLs")
	f.StringVar(&l.modelBase, "model_base_path", "", "`directory` or URL (file, http, https, s3, gs) with the model's versions")
	f.StringVar(&l.configFile, "model_config_file", "", "`file` that names many models (TF-Serving's model_config_list), instead of the two above")
	f.Float64Var(&l.configPoll, "model_config_file_poll_wait_seconds", 0, "`seconds` between two looks at the config files; 0: only at start and at SIGHUP")
	f.StringVar(&l.trafficFile, "traffic_config_file", "", "`file` that shares traffic between versions, and names shadows")
	f.Float64Var(&l.filePoll, "file_system_poll_wait_seconds", 1, "`seconds` between two looks for new versions; 0: only at start and at SIGHUP")
	f.DurationVar(&l.settle, "version_settle_time", time.Second, "a new version is loaded when its files have been left alone for this `time`")
	f.IntVar(&l.retries, "max_num_load_retries", 5, "how `often` a version that cannot be loaded is tried again though its files have not changed")
	f.Int64Var(&l.retryMicros, "load_retry_interval_micros", 60_000_000, "`microseconds` between those attempts")
	f.IntVar(&l.loads, "num_load_threads", 1, "`versions` loaded at the same time")
	f.IntVar(&l.nice, "load_niceness", 20, "by how much threads that load `give way` to those that serve, once a model is served: 0..20, where 20 is SCHED_IDLE")
	f.Float64Var(&l.pauses, "load_pauses", 3, "while requests are served, a load that reads pauses for so many `times` as long as it read; 0: it does not")
	f.DurationVar(&l.madeUp, "warm_timeout", 5*time.Minute, "a signature is tried and warmed with made-up rows for this `time` at most, but for a Run that has begun; 0: however long it takes")
	f.DurationVar(&l.patience, "load_patience", time.Minute, "a load that takes longer than this `time` gives way no more; 0: it does however long it takes")
	f.BoolVar(&l.lazy, "lazy_load", false, "load a version when it is first asked for, and not before")
	f.DurationVar(&l.lazyWait, "lazy_load_timeout", 30*time.Second, "`time` that a request waits for that")
	l.stay = repository.DefaultStay
	f.Var(&l.stay, "lazy_min_stay", "for how `long` a version just loaded and in use stays although others wait for its memory: 4x, times as long as its load took "+
		"(at most half of --lazy_load_timeout), or a time, as 10s; 0: it does not")
	f.Int64Var(&l.budget, "model_memory_budget", 0, "`bytes` that models may take together, reckoned from their files; with --lazy_load what "+
		"was used least recently makes room; 0: not bounded")
	l.remote.register(f)
}

func (l *lifecycle) check() error {
	switch {
	case l.modelBase == "" && l.configFile == "":
		return errors.New("--model_base_path or --model_config_file is required; see go_infer --help")
	case l.modelBase != "" && l.configFile != "":
		return errors.New("--model_base_path and --model_config_file cannot both be given; name the model in the file")
	case l.modelBase != "" && l.modelName == "":
		return errors.New("--model_name cannot be empty: nobody could ask for the model")
	case !(l.configPoll >= 0 && l.configPoll <= 86400):
		return fmt.Errorf("--model_config_file_poll_wait_seconds=%g is out of range; it must be 0..86400", l.configPoll)
	case !(l.filePoll >= -1 && l.filePoll <= 86400):
		return fmt.Errorf("--file_system_poll_wait_seconds=%g is out of range; it must be -1..86400", l.filePoll)
	case l.nice < 0 || l.nice > 20:
		return fmt.Errorf("--load_niceness=%d is out of range; it must be 0..20", l.nice)
	case !(l.pauses >= 0 && l.pauses <= 100):
		return fmt.Errorf("--load_pauses=%g is out of range; it must be 0..100", l.pauses)
	case l.loads < 1 || l.loads > 64:
		return fmt.Errorf("--num_load_threads=%d is out of range; it must be 1..64", l.loads)
	case l.retries < 0 || l.retryMicros < 0 || l.budget < 0 || l.settle < 0 || l.lazyWait < 0 || l.patience < 0 || l.madeUp < 0:
		return errors.New("--max_num_load_retries, --load_retry_interval_micros, --model_memory_budget, --version_settle_time, --warm_timeout, --load_patience and --lazy_load_timeout cannot be negative")
	}
	return l.remote.check()
}

func seconds(s float64) time.Duration { return max(0, time.Duration(s*float64(time.Second))) }

// repository makes the repository of these flags; loader makes its models.
func (l *lifecycle) repository(load repository.Loader, closing func(*model.Model), remotes repository.Remote, registry *metrics.Registry,
	log *slog.Logger) *repository.Repository {
	return repository.New(repository.Options{
		Load: load, Close: closing, Remote: remotes, Log: log,
		Poll: seconds(l.filePoll), Settle: l.settle, Loads: l.loads,
		Retries: l.retries, Every: time.Duration(l.retryMicros) * time.Microsecond,
		Lazy: l.lazy, LazyWait: l.lazyWait, Budget: l.budget, Stay: l.stay,
		Shadowed: func(name string, outcome model.Outcome) { registry.Serving(name).Shadow(int(outcome)) },
	})
}

// loader makes models, with their counters. serves says whether any is served.
func loader(o *options, serves func() bool, registry *metrics.Registry, pool *tensor.Pool, log *slog.Logger) (repository.Loader, func(*model.Model)) {
	limits := o.batching.limits(batch.NewShare(o.batching.slots()))
	trim := newTrimming(o.trimLibraries, registry, log)
	load := func(name string, version int64, directory string) (*model.Model, error) {
		counters, begun := registry.Model(name, version), time.Now()
		warmed := trim.load()
		m, err := model.Load(name, version, directory, model.Options{
			Limits: limits, Weight: o.batching.weights[name], IntraOp: o.intraOp, Nice: o.nice, Alone: func() bool { return !serves() }, Pool: pool, Events: counters,
			Patience: o.patience, Overdue: func(raised bool) {
				log.Warn("a load takes longer than --load_patience: it gives way no more", "model", name, "version", version,
					"patience", o.patience.String(), "normal_priority", raised)
			},
			MadeUp:  o.madeUp,
			MaxRows: o.batching.maxRows, MaxAnswer: o.batching.maxAnswer, Trust: o.batching.unchecked,
			Apart:  func(signature string) string { return o.batching.alone(name, signature) },
			Tell:   func(text string) { log.Warn("about a model", "model", name, "version", version, "what", text) },
			Warmed: warmed,
		})
		registry.Loaded(filepath.Join(name, fmt.Sprint(version)), err == nil, time.Since(begun))
		if err == nil {
			counters.Queue(m.Waiting)
			counters.Outcomes(m.Tally)
		} else {
			registry.Retire(counters)
		}
		return m, err
	}
	closing := func(m *model.Model) {
		counters := registry.Model(m.Name, m.Version)
		counters.Queue(nil)
		m.Close()
		registry.Retire(counters)
	}
	return load, closing
}

// largestConfig is far more than a config of thousands of models.
const largestConfig = 16 << 20

// configuration keeps a repository as the files say.
type configuration struct {
	flags *lifecycle
	repo  *repository.Repository
	log   *slog.Logger
	look  func() // has remote repositories listed anew

	mu      sync.Mutex
	applied [sha256.Size]byte // of the files' content
	failure string            // of the last attempt, "" if it was good
}

// read reads what shall be served, and the digest of what it was read from.
func (c *configuration) read() (modelconfig.Config, [sha256.Size]byte, error) {
	var config modelconfig.Config
	sum := sha256.New()
	content := func(file string) (string, error) {
		opened, err := os.Open(file)
		if err != nil {
			return "", err
		}
		defer opened.Close()
		text, err := io.ReadAll(io.LimitReader(opened, largestConfig+1))
		if err == nil && len(text) > largestConfig {
			err = fmt.Errorf("%s: larger than %d bytes", file, largestConfig)
		}
		_, _ = fmt.Fprintf(sum, "%s %d\n%s", file, len(text), text)
		return string(text), err
	}
	if c.flags.configFile == "" {
		base := c.flags.modelBase
		if !modelconfig.Remote(base) {
			absolute, err := filepath.Abs(base)
			if err != nil {
				return config, [sha256.Size]byte{}, err
			}
			base = absolute
		}
		config.Models = []modelconfig.Model{{Name: c.flags.modelName, BasePath: base}}
	} else {
		text, err := content(c.flags.configFile)
		if err == nil {
			config, err = modelconfig.Parse(c.flags.configFile, text)
		}
		if err != nil {
			return config, [sha256.Size]byte(sum.Sum(nil)), err
		}
	}
	if c.flags.trafficFile != "" {
		text, err := content(c.flags.trafficFile)
		if err == nil {
			config.Traffic, err = modelconfig.ParseTraffic(c.flags.trafficFile, text)
		}
		if err != nil {
			return config, [sha256.Size]byte(sum.Sum(nil)), err
		}
		if config.Traffic == nil {
			config.Traffic = []modelconfig.Traffic{}
		}
	}
	return config, [sha256.Size]byte(sum.Sum(nil)), nil
}

// apply reads the files and makes the repository follow them; if they have not changed and always is false it does nothing. On an
// error what was served goes on, and the reason is logged once; at the start, when nothing is served, it is only returned.
func (c *configuration) apply(always bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	config, sum, err := c.read()
	if err == nil && sum == c.applied && !always {
		return nil
	}
	if err == nil {
		err = c.repo.Apply(config)
	}
	if err != nil {
		if first := c.applied == [sha256.Size]byte{}; c.failure != err.Error() && !first {
			c.failure = err.Error()
			c.log.Error("the new config is refused; the old one stays", "error", c.failure)
		}
		return err
	}
	c.applied, c.failure = sum, ""
	c.look()
	for _, warning := range config.Warnings {
		c.log.Warn(warning)
	}
	c.repo.Look()
	c.log.Info("config applied", "models", len(config.Models), "traffic", len(config.Traffic))
	return nil
}

// good is 1 if the files are in effect as they are, else 0.
func (c *configuration) good() float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failure != "" {
		return 0
	}
	return 1
}

// watch applies the files when asked to, and when they change.
func (c *configuration) watch(ctx context.Context, asked <-chan os.Signal) {
	var ticks <-chan time.Time
	if poll := seconds(c.flags.configPoll); poll > 0 {
		ticker := time.NewTicker(poll)
		defer ticker.Stop()
		ticks = ticker.C
	}
	for {
		select {
		case <-asked:
			_ = c.apply(true) // it has said why not
		case <-ticks:
			_ = c.apply(false)
		case <-ctx.Done():
			return
		}
	}
}
