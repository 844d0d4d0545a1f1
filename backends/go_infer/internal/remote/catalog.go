package remote

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"sluicegate/go_infer/internal/panics"
)

// patience is how long the first look at a repository waits for its listing if versions are in the cache already.
const patience = 5 * time.Second

// Catalog knows what remote base paths have, and brings versions of them into a cache.
//
// Contract: Versions answers from memory but for the first time, and lists again behind the caller's back when its knowledge is older
// than poll, so that a hung server holds up nobody. While a repository cannot be listed its last listing stands; if there is none yet,
// what is in the cache does. A version in the cache is not fetched again. A failure is logged when it begins, and when it ends.
type Catalog struct {
	cache   *Cache
	limits  Limits
	poll    time.Duration
	log     *slog.Logger
	changed func() // is called when a listing was not what it was before
	fetches chan struct{}

	context context.Context
	stop    context.CancelFunc
	working sync.WaitGroup
	counted catalogCounts

	mu    sync.Mutex
	bases map[string]*base
}

type catalogCounts struct{ fetched, failed atomic.Int64 }

// base is one address. Guarded by the catalog's lock but for source and first.
type base struct {
	source   Source
	listed   bool
	versions []int64
	err      error     // of the last listing
	looked   time.Time // when the last listing began; zero: look again
	looking  bool
	first    chan struct{} // closed after the first listing
}

// NewCatalog makes a catalog; at most fetches versions are fetched at a time. changed may be nil.
func NewCatalog(cache *Cache, limits Limits, poll time.Duration, fetches int, log *slog.Logger, changed func()) *Catalog {
	if changed == nil {
		changed = func() {}
	}
	c := &Catalog{cache: cache, limits: limits, poll: poll, log: log, changed: changed, fetches: make(chan struct{}, max(1, fetches)),
		bases: map[string]*base{}}
	c.context, c.stop = context.WithCancel(context.Background())
	return c
}

// open finds the base of an address.
func (c *Catalog) open(address string) (*base, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b := c.bases[address]; b != nil {
		return b, nil
	}
	source, err := Open(address, c.limits)
	if err != nil {
		return nil, fmt.Errorf("model base path: %w", err)
	}
	b := &base{source: source, first: make(chan struct{})}
	c.bases[address] = b
	return b, nil
}

// Versions lists the versions of an address, ascending, and the directory each has or will have in the cache.
func (c *Catalog) Versions(ctx context.Context, address string) ([]int64, func(version int64) string, error) {
	b, err := c.open(address)
	if err != nil {
		return nil, nil, err
	}
	c.mu.Lock()
	if !b.looking && (b.looked.IsZero() || time.Since(b.looked) >= c.poll) && c.context.Err() == nil {
		b.looking, b.looked = true, time.Now()
		c.working.Go(func() { c.list(b) })
	}
	c.mu.Unlock()
	cached := c.cache.Versions(b.source)
	var enough <-chan time.Time
	if len(cached) > 0 {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		enough = timer.C
	}
	select {
	case <-b.first:
	case <-enough:
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	directory := func(version int64) string {
		return filepath.Join(c.cache.Base(b.source), strconv.FormatInt(version, 10))
	}
	switch {
	case b.listed && len(b.versions) > 0:
		return b.versions, directory, nil
	case b.listed:
		return nil, nil, fmt.Errorf("model base path %s has no version", b.source)
	case len(cached) > 0:
		return cached, directory, nil
	}
	return nil, nil, fmt.Errorf("model base path: %w", b.err)
}

// list asks a source what it has.
func (c *Catalog) list(b *base) {
	var versions []int64
	err := panics.Guard(nil, "a look at a remote repository", func() (err error) {
		versions, err = b.source.Versions(c.context)
		return err
	})
	c.mu.Lock()
	before, news := b.err, err == nil && !(b.listed && slices.Equal(versions, b.versions))
	b.looking, b.err = false, err
	if err == nil {
		b.listed, b.versions = true, versions
	}
	select {
	case <-b.first:
	default:
		close(b.first)
	}
	c.mu.Unlock()
	switch {
	case c.context.Err() != nil:
		return
	case err != nil && (before == nil || before.Error() != err.Error()):
		c.log.Warn("model repository cannot be listed; what is known of it stands", "address", b.source.String(), "error", err.Error())
	case err == nil && before != nil:
		c.log.Info("model repository is back", "address", b.source.String())
	}
	if news {
		c.changed()
	}
}

// Look has every address listed anew when its versions are next asked for.
func (c *Catalog) Look() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range c.bases {
		b.looked = time.Time{}
	}
}

// Fetch brings a version into the cache, unless it is there, and keeps it there until release is called.
func (c *Catalog) Fetch(ctx context.Context, address string, version int64) (release func(), err error) {
	b, err := c.open(address)
	if err != nil {
		return nil, err
	}
	select {
	case c.fetches <- struct{}{}:
		defer func() { <-c.fetches }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	directory, begun := filepath.Join(c.cache.Base(b.source), strconv.FormatInt(version, 10)), time.Now()
	_, missing := os.Lstat(directory)
	if missing != nil {
		c.log.Info("fetching", "address", b.source.String(), "version", version)
	}
	if directory, err = c.cache.Get(ctx, b.source, version); err != nil {
		if ctx.Err() == nil {
			c.counted.failed.Add(1)
		}
		return nil, err
	}
	if missing != nil {
		c.counted.fetched.Add(1)
		c.log.Info("fetched", "address", b.source.String(), "version", version, "ms", time.Since(begun).Milliseconds())
	}
	var once sync.Once
	return func() { once.Do(func() { c.cache.Release(directory) }) }, nil
}

// Fetched counts the versions that were brought into the cache.
func (c *Catalog) Fetched() int64 { return c.counted.fetched.Load() }

// Failed counts the fetches that failed; those that were given up because nobody wanted the version any more are not among them.
func (c *Catalog) Failed() int64 { return c.counted.failed.Load() }

// Unreachable is the number of addresses whose last listing failed.
func (c *Catalog) Unreachable() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range c.bases {
		if b.err != nil {
			n++
		}
	}
	return n
}

// Close ends what is being listed and closes the sources.
func (c *Catalog) Close() error {
	c.stop()
	c.working.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []error
	for _, b := range c.bases {
		all = append(all, b.source.Close())
	}
	return errors.Join(all...)
}
