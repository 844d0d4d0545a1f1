package remote

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Cache keeps fetched versions on the local disk, those used last within a bound of bytes.
//
// Contract: Get returns a complete version's directory, which stays until Release; what nobody holds may be removed for others. Several
// processes may share a directory: one fetches, the others wait, and what one holds the others leave alone (flock of the version's
// directory, where the file system has that for directories).
// Below Directory there is one directory for each source, named by its address' SHA-256, so that no secret of it is on the disk.
type Cache struct {
	directory string
	bytes     int64

	mu   sync.Mutex
	held map[string]int      // by a version's directory
	seen map[string]*os.File // what others see of that: the directory, with a shared lock
}

// NewCache makes a cache of at most so many bytes below directory. What is held is kept, even if it alone is more.
func NewCache(directory string, bytes int64) *Cache {
	return &Cache{directory: directory, bytes: bytes, held: map[string]int{}, seen: map[string]*os.File{}}
}

// Base is the directory for a source's versions: a model base path with what is in the cache.
func (c *Cache) Base(source Source) string {
	address := source.String()
	if s, known := source.(interface{ Identity() string }); known {
		address = s.Identity()
	}
	sum := sha256.Sum256([]byte(address))
	return filepath.Join(c.directory, fmt.Sprintf("%x", sum[:12]))
}

// Get returns the directory of a version, fetched if it is not there. Release it when the model is unloaded.
func (c *Cache) Get(ctx context.Context, source Source, version int64) (_ string, err error) {
	base := c.Base(source)
	directory := filepath.Join(base, strconv.FormatInt(version, 10))
	if err := c.making(ctx, func() error { return os.MkdirAll(base, 0o750) }); err != nil {
		return "", advised(err)
	}
	c.hold(directory)
	defer func() {
		if err != nil {
			c.Release(directory)
		}
	}()
	var unlock func()
	if err := c.making(ctx, func() (err error) { unlock, err = lock(ctx, lockOf(directory)); return err }); err != nil {
		return "", advised(err)
	}
	defer unlock()
	_, missing := os.Lstat(directory)
	if errors.Is(missing, fs.ErrNotExist) {
		if err := c.making(ctx, func() error { return source.Fetch(ctx, version, directory) }); err != nil {
			if full(err) { // what has come of it is of use to nobody, and would keep the disk full for everybody
				_ = os.RemoveAll(partial(directory))
			}
			return "", err
		}
	}
	_ = os.RemoveAll(partial(directory)) // a crash right after the rename leaves it, with all of an archive
	c.show(directory)
	if missing != nil {
		_ = c.Prune() // what cannot be removed today is no reason not to serve; who calls Prune itself is told
	}
	now := time.Now()
	return directory, os.Chtimes(lockOf(directory), now, now) // when it was used last; the version's own times stay as they are
}

// making does what needs room. As long as the disk is full it removes what nobody holds, the least recently used first, as much as is
// known to be missing and one version at least, and has it done again; not if all of that would not be enough, or if the disk is not what is
// too small.
func (c *Cache) making(ctx context.Context, do func() error) error {
	for {
		err := do()
		if !full(err) || errors.Is(err, syscall.EFBIG) || ctx.Err() != nil {
			return err
		}
		all, _, unseen := c.contents()
		missing := int64(1)
		if lacks := (*lacking)(nil); errors.As(err, &lacks) {
			if missing = lacks.bytes; c.idle(all) < missing {
				return err
			}
		}
		if unseen != nil || !c.removeFor(all, missing) {
			return err
		}
	}
}

// lockOf is the file whose lock a version's fetch holds, and whose date says when the version was used last.
func lockOf(directory string) string {
	return filepath.Join(filepath.Dir(directory), ".lock-"+filepath.Base(directory))
}

// Versions lists what is whole in the cache, ascending.
func (c *Cache) Versions(source Source) []int64 {
	entries, _ := os.ReadDir(c.Base(source))
	var all []int64
	for _, entry := range entries {
		if n, err := number(entry.Name()); err == nil && entry.IsDir() {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return all
}

func (c *Cache) hold(directory string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held[directory]++
}

// Release says that a directory of Get is no longer used.
func (c *Cache) Release(directory string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held[directory]--; c.held[directory] <= 0 {
		delete(c.held, directory)
		c.hide(directory)
	}
}

// show lets other processes see that a version is held, until hide. It is called with the version's lock, so that none is removing it.
func (c *Cache) show(directory string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hide(directory)
	file, err := os.Open(directory) // #nosec G304 -- what was shown before may be another directory, since removed
	if err != nil {
		return
	}
	if syscall.Flock(int(file.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) != nil { // #nosec G115
		_ = file.Close() // there are file systems that cannot
		return
	}
	c.seen[directory] = file
}

func (c *Cache) hide(directory string) {
	if file := c.seen[directory]; file != nil {
		_ = file.Close()
		delete(c.seen, directory)
	}
}

// kept is something in the cache: a version, or what an interrupted fetch left.
type kept struct {
	path  string
	bytes int64
	used  time.Time
}

// Prune removes what was not used for the longest time until the rest fits. A version is renamed before it is removed, so that nobody takes
// half of one for a whole; what another process holds by its lock is left alone.
func (c *Cache) Prune() error {
	all, total, err := c.contents()
	if err != nil {
		return err
	}
	byUse(all)
	for _, one := range all {
		if total <= c.bytes {
			return nil
		}
		removed, err := c.remove(one.path)
		if err != nil {
			return err
		}
		if removed {
			total -= one.bytes
		}
	}
	return nil
}

// idle is how many bytes nobody holds, as far as this process knows.
func (c *Cache) idle(all []kept) (bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, one := range all {
		if c.held[versionOf(one.path)] == 0 {
			bytes += one.bytes
		}
	}
	return bytes
}

func byUse(all []kept) {
	slices.SortFunc(all, func(a, b kept) int { return cmp.Or(a.used.Compare(b.used), cmp.Compare(a.path, b.path)) })
}

// removeFor removes so many bytes of what nobody holds, what was used least recently first; false: there is nothing.
func (c *Cache) removeFor(all []kept, bytes int64) (any bool) {
	byUse(all)
	for _, one := range all {
		if bytes <= 0 {
			break
		}
		if removed, err := c.remove(one.path); err == nil && removed {
			any = true
			bytes -= one.bytes
		}
	}
	return any
}

// remove removes what nobody holds; false: somebody does. That may take long, and keeps nobody from Get and Release.
func (c *Cache) remove(path string) (bool, error) {
	gone := filepath.Join(filepath.Dir(path), ".removed-"+filepath.Base(path))
	unlock, err := c.setAside(path, gone)
	if err != nil || unlock == nil {
		return false, err
	}
	defer unlock() // until then who wants it again waits
	return true, os.RemoveAll(gone)
}

// setAside renames what nobody holds, and locks the version; nil: somebody holds it.
func (c *Cache) setAside(path, gone string) (unlock func(), err error) {
	directory := versionOf(path)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held[directory] > 0 {
		return nil, nil
	}
	unlock, err = tryLock(lockOf(directory))
	if err != nil || unlock == nil {
		return nil, err
	}
	if shown(path) {
		unlock()
		return nil, nil
	}
	if err := os.Rename(path, gone); err != nil && !errors.Is(err, fs.ErrNotExist) { // else another process was faster
		unlock()
		return nil, err
	}
	return unlock, nil
}

// shown says whether another process shows that it holds what is there.
func shown(path string) bool {
	file, err := os.Open(path) // #nosec G304
	if err != nil {
		return false
	}
	defer file.Close()
	return errors.Is(syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB), syscall.EWOULDBLOCK) // #nosec G115
}

// versionOf is the version's directory that a path in the cache is, or is a part of.
func versionOf(path string) string {
	return filepath.Join(filepath.Dir(path), strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), "."), ".partial"))
}

// contents lists what is in the cache, and how large it is; what a crash left of a removal is removed.
func (c *Cache) contents() (all []kept, total int64, err error) {
	places, err := filepath.Glob(filepath.Join(c.directory, "*", "*"))
	if err != nil {
		return nil, 0, err
	}
	for _, path := range places {
		name := filepath.Base(path)
		switch {
		case strings.HasPrefix(name, ".removed-"):
			if err := os.RemoveAll(path); err != nil {
				return nil, 0, err
			}
			continue
		case strings.HasPrefix(name, ".") && !strings.HasSuffix(name, ".partial"):
			continue
		}
		info, err := os.Lstat(path)
		if err != nil {
			continue // another process was faster
		}
		one := kept{path: path, used: info.ModTime()}
		if lock, err := os.Lstat(lockOf(versionOf(path))); err == nil && info.IsDir() && !strings.HasPrefix(name, ".") {
			one.used = lock.ModTime()
		}
		_ = filepath.WalkDir(path, func(_ string, entry fs.DirEntry, err error) error {
			if err == nil && entry.Type().IsRegular() {
				if info, err := entry.Info(); err == nil {
					one.bytes += info.Size()
				}
			}
			return nil
		})
		total += one.bytes
		all = append(all, one)
	}
	return all, total, nil
}

// tryLock takes a file's lock; nil without an error if somebody has it. The file stays: removing it would let two hold "it".
func tryLock(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640) // #nosec G304
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) // #nosec G115
	if err != nil {
		_ = file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, nil
		}
		return nil, err
	}
	return func() { _ = file.Close() }, nil
}

// lock waits for a file's lock. The kernel gives it back when its holder dies.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	for {
		if unlock, err := tryLock(path); unlock != nil || err != nil {
			return unlock, err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for another fetch of the same version: %w", context.Cause(ctx))
		}
	}
}
