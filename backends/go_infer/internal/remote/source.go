package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"sluicegate/go_infer/internal/panics"
)

// source is a store with versions in it.
type source struct {
	name   string
	place  string // name, and what of the query says where it is
	store  Store
	limits Limits

	mu       sync.Mutex
	unpacked map[string]int64 // bytes that an archive takes on the disk, by its SHA-256; of those that once found it full
}

func (s *source) String() string { return s.name }

// Identity tells sources apart: buckets of one name at different endpoints are different ones.
func (s *source) Identity() string { return s.place }

// Close ends what the store holds.
func (s *source) Close() error { return s.store.Close() }

// partial is where what is fetched for directory waits until it is complete. Its name is no version, so nobody takes it for one.
func partial(directory string) string {
	return filepath.Join(filepath.Dir(directory), "."+filepath.Base(directory)+".partial")
}

// Fetch brings a version into directory.
func (s *source) Fetch(ctx context.Context, version int64, directory string) error {
	err := s.fetch(ctx, version, directory)
	if err == nil || !full(err) {
		return err
	}
	return fmt.Errorf("version %d of %s: %w", version, s.name, advised(err))
}

func (s *source) fetch(ctx context.Context, version int64, directory string) error {
	if _, err := os.Lstat(directory); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", directory, fs.ErrExist)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.limits.Total,
		fmt.Errorf("version %d of %s was not there after %s", version, s.name, s.limits.Total))
	defer cancel()
	p, err := s.plan(ctx, version)
	if err != nil {
		return err
	}
	staging := partial(directory)
	files := filepath.Join(staging, "files")
	if err := os.MkdirAll(files, 0o750); err != nil {
		return err
	}
	if p.archive {
		files = filepath.Join(staging, "archive")
	}
	if err := room(staging, files, p.items, s.takes(p)); err != nil {
		return err
	}
	if err := s.getAll(ctx, p.items, files); err != nil {
		return err
	}
	result := files
	if p.archive {
		archive := filepath.Join(files, filepath.FromSlash(p.items[0].path))
		if result, err = s.unpack(ctx, archive, filepath.Join(staging, "files")); err != nil {
			if full(err) {
				err = s.lacks(ctx, p, archive, staging, err)
			}
			return fmt.Errorf("%s/%s: %w", s.name, p.items[0].key, err)
		}
	} else if err := only(files, p.items); err != nil {
		return err
	}
	if p.listed != "" {
		again, err := s.listed(ctx, p.listed)
		if err != nil {
			return err
		}
		if !slices.EqualFunc(p.items, again.items, func(a, b item) bool { return a.path == b.path && a.size == b.size && a.tag == b.tag }) {
			_ = os.RemoveAll(staging)
			return fmt.Errorf("%s/%s: %w: somebody is still writing there", s.name, p.listed, ErrChanged)
		}
	}
	if err := os.Rename(result, directory); err != nil {
		return err
	}
	if err := syncDirectory(filepath.Dir(directory)); err != nil {
		return err
	}
	return os.RemoveAll(staging)
}

// takes is what the archive of a plan unpacks to, if that is known.
func (s *source) takes(p *plan) int64 {
	if !p.archive {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unpacked[string(p.items[0].sha256)]
}

// lacks finds out how much is missing on a disk that was too full for unpacking an archive. The archive stays, and its size is remembered:
// when room was made it need not be fetched again, and the next time it is known before. Where the disk seems to have room err stays.
func (s *source) lacks(ctx context.Context, p *plan, archive, staging string, err error) error {
	if removed := os.RemoveAll(filepath.Join(staging, "files")); removed != nil {
		return removed
	}
	bytes, unseen := s.measure(ctx, archive)
	if unseen != nil {
		return unseen
	}
	s.mu.Lock()
	if s.unpacked == nil {
		s.unpacked = map[string]int64{}
	}
	s.unpacked[string(p.items[0].sha256)] = bytes
	s.mu.Unlock()
	return cmp.Or(room(staging, "", nil, bytes), err)
}

// getAll fetches a few items at a time. The first failure ends the others.
func (s *source) getAll(ctx context.Context, items []item, directory string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan item)
	var work sync.WaitGroup
	var once sync.Once
	var failure error
	for range min(s.limits.Parallel, len(items)) {
		work.Go(func() {
			for one := range next {
				if err := panics.Guard(nil, "a download", func() error { return s.get(ctx, one, directory) }); err != nil {
					once.Do(func() { failure = err })
					cancel(err)
				}
			}
		})
	}
	for _, one := range items {
		if ctx.Err() != nil {
			break
		}
		next <- one
	}
	close(next)
	work.Wait()
	if failure == nil && ctx.Err() != nil {
		failure = context.Cause(ctx)
	}
	return failure
}

// only removes what an earlier attempt left of another plan.
func only(directory string, items []item) error {
	wanted := map[string]bool{}
	for _, one := range items {
		wanted[filepath.Join(directory, filepath.FromSlash(one.path))] = true
	}
	return filepath.WalkDir(directory, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || wanted[path] {
			return err
		}
		return os.Remove(path)
	})
}

// syncDirectory makes a rename last.
func syncDirectory(directory string) error {
	opened, err := os.Open(directory) // #nosec G304
	if err != nil {
		return err
	}
	defer opened.Close()
	return opened.Sync()
}
