package remote

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// ErrFull says that the disk of the cache has no room for a version. Attempts at once would not change it; who asks later may find some.
var ErrFull = errors.New("no room on the disk of the model cache")

// lacking is ErrFull with how many bytes are missing.
type lacking struct {
	error
	bytes int64
}

func (l *lacking) Unwrap() error { return l.error }

// full says whether a disk refused to take more: it has no room, or its owner may have no more, or no file of that size.
func full(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) || errors.Is(err, ErrFull)
}

// advised makes an error of a full disk one that says so, and what to do.
func advised(err error) error {
	if !full(err) {
		return err
	}
	if !errors.Is(err, ErrFull) {
		err = fmt.Errorf("%w: %w", ErrFull, err)
	}
	return fmt.Errorf("%w; make room, or choose another disk with --remote_cache_dir", err)
}

// room refuses to fetch what the disk of staging has no room for, and more bytes beside it. What an earlier attempt left in files counts.
func room(staging, files string, items []item, more int64) error {
	need := more
	for i := range items {
		need += items[i].size
		path := filepath.Join(files, filepath.FromSlash(items[i].path))
		for _, there := range []string{path, path + partSuffix} {
			if info, err := os.Lstat(there); err == nil {
				need -= min(info.Size(), items[i].size)
				break
			}
		}
	}
	var disk syscall.Statfs_t
	if err := syscall.Statfs(staging, &disk); err != nil {
		return fmt.Errorf("%s: %w", staging, err)
	}
	if free := int64(disk.Bavail) * disk.Bsize; need > free { // #nosec G115 -- no disk has so much
		return &lacking{fmt.Errorf("%w: %s needs %.1f MB and %.1f MB are free", ErrFull, staging, float64(need)/1e6, float64(free)/1e6), need - free}
	}
	return nil
}
