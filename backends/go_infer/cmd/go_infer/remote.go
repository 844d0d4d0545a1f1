package main

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"sluicegate/go_infer/internal/metrics"
	"sluicegate/go_infer/internal/remote"
)

// remoteOptions are the flags of base paths that are URLs.
type remoteOptions struct {
	cache     string
	bytes     int64
	poll      time.Duration
	downloads int
	limits    remote.Limits
}

func (o *remoteOptions) register(f *flag.FlagSet) {
	o.limits = remote.Defaults()
	f.StringVar(&o.cache, "remote_cache_dir", "", "`directory` for versions of base paths that are URLs (default: sluicegate/models in the user's cache directory)")
	f.Int64Var(&o.bytes, "remote_cache_bytes", 20<<30, "most `bytes` in it; what is loaded stays, of the rest what was used least recently goes")
	f.DurationVar(&o.poll, "remote_poll_wait", 30*time.Second, "`time` between two looks for new versions at a URL, if there are looks at all (file_system_poll_wait_seconds)")
	f.IntVar(&o.downloads, "remote_downloads", 2, "`versions` fetched at the same time")
	f.IntVar(&o.limits.Parallel, "remote_parallel", o.limits.Parallel, "`files` of a version fetched at the same time")
	f.DurationVar(&o.limits.Total, "remote_timeout", o.limits.Total, "`time` that fetching one version may take")
	f.DurationVar(&o.limits.Window, "remote_stall_timeout", o.limits.Window, "`time` after which a connection that brings nearly nothing (less than 16 KiB) is given up")
	f.IntVar(&o.limits.Attempts, "remote_attempts", o.limits.Attempts, "`attempts` in a row without a byte after which a fetch has failed; it is begun again later")
	f.DurationVar(&o.limits.Backoff, "remote_backoff", o.limits.Backoff, "`time` before the second attempt; doubled before each further one, up to 5s")
	f.Int64Var(&o.limits.Bytes, "remote_max_bytes", o.limits.Bytes, "largest version that is fetched, in `bytes`, unpacked")
}

func (o *remoteOptions) check() error {
	for _, bound := range []struct {
		name             string
		value, low, high int64
	}{
		{"remote_cache_bytes", o.bytes, 0, 1 << 50},
		{"remote_max_bytes", o.limits.Bytes, 1 << 10, 1 << 50},
		{"remote_downloads", int64(o.downloads), 1, 64},
		{"remote_parallel", int64(o.limits.Parallel), 1, 64},
		{"remote_attempts", int64(o.limits.Attempts), 1, 100},
	} {
		if bound.value < bound.low || bound.value > bound.high {
			return fmt.Errorf("--%s=%d is out of range; it must be %d..%d", bound.name, bound.value, bound.low, bound.high)
		}
	}
	for _, bound := range []struct {
		name             string
		value, low, high time.Duration
	}{
		{"remote_poll_wait", o.poll, 0, 24 * time.Hour},
		{"remote_timeout", o.limits.Total, time.Second, 7 * 24 * time.Hour},
		{"remote_stall_timeout", o.limits.Window, 100 * time.Millisecond, time.Hour},
		{"remote_backoff", o.limits.Backoff, time.Millisecond, 5 * time.Second},
	} {
		if bound.value < bound.low || bound.value > bound.high {
			return fmt.Errorf("--%s=%s is out of range; it must be %s..%s", bound.name, bound.value, bound.low, bound.high)
		}
	}
	return nil
}

// catalog makes what fetches models; nothing is written before the first URL is fetched from.
func (o *remoteOptions) catalog(registry *metrics.Registry, log *slog.Logger, changed func()) (*remote.Catalog, error) {
	directory := o.cache
	if directory == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			user = os.TempDir()
		}
		directory = filepath.Join(user, "sluicegate", "models")
	}
	directory, err := filepath.Abs(directory)
	if err != nil {
		return nil, fmt.Errorf("--remote_cache_dir: %w", err)
	}
	if info, err := os.Stat(directory); err == nil && !info.IsDir() {
		return nil, errors.New("--remote_cache_dir: " + directory + " is no directory")
	}
	c := remote.NewCatalog(remote.NewCache(directory, o.bytes), o.limits, o.poll, o.downloads, log, changed)
	registry.Counter("go_infer_remote_fetched_total", "Versions fetched from remote repositories.", func() float64 { return float64(c.Fetched()) })
	registry.Counter("go_infer_remote_failed_total", "Fetches from remote repositories that failed.", func() float64 { return float64(c.Failed()) })
	registry.Gauge("go_infer_remote_unreachable", "Remote repositories whose last listing failed.", func() float64 { return float64(c.Unreachable()) })
	return c, nil
}
