package remote

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // what buckets know; against accidents, not against attackers
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

const (
	maxBackoff  = 5 * time.Second
	maxRestarts = 3 // from the beginning, because the object changed or its checksum was wrong
)

// attempt is one try; it counts the bytes that move and says whether they brought it further.
type attempt func(ctx context.Context, moved *atomic.Int64) (progress bool, err error)

// persist tries until it succeeds, is refused, or has failed so often in a row without progress. Each attempt's context ends when less than
// Floor bytes moved in a Window.
func (s *source) persist(ctx context.Context, try attempt) error {
	for failures := 0; ; {
		progress, err := s.watched(ctx, try)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%w; the last error was: %w", context.Cause(ctx), err)
		case full(err), errors.Is(err, ErrRefused), errors.Is(err, ErrNotFound), errors.Is(err, ErrChanged), errors.Is(err, errNoListing):
			return err
		}
		if progress {
			failures = 0
		}
		if failures++; failures >= s.limits.Attempts {
			return fmt.Errorf("%w (given up after %d attempts)", err, failures)
		}
		wait := min(s.limits.Backoff<<(failures-1), maxBackoff)
		select {
		case <-time.After(wait/2 + rand.N(wait/2+1)): // #nosec G404
		case <-ctx.Done():
			return fmt.Errorf("%w; the last error was: %w", context.Cause(ctx), err)
		}
	}
}

// watched is one attempt that ends when it stalls.
func (s *source) watched(outer context.Context, try attempt) (bool, error) {
	var moved atomic.Int64
	ctx, cancel := context.WithCancelCause(outer)
	defer cancel(nil)
	watch := time.NewTicker(s.limits.Window)
	defer watch.Stop()
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		for {
			select {
			case <-ended:
				return
			case <-watch.C:
				if moved.Swap(0) < s.limits.Floor {
					cancel(fmt.Errorf("%w: fewer than %d bytes in %s", ErrStalled, s.limits.Floor, s.limits.Window))
					return
				}
			}
		}
	}()
	progress, err := try(ctx, &moved)
	if reason := context.Cause(ctx); err != nil && errors.Is(reason, ErrStalled) {
		err = reason
	}
	return progress, err
}

// counted is a reader that counts.
type counted struct {
	io.Reader
	moved *atomic.Int64
}

func (c counted) Read(into []byte) (int, error) {
	n, err := c.Reader.Read(into)
	c.moved.Add(int64(n))
	return n, err
}

// download is one object on its way into a file.
type download struct {
	*source
	item
	file     *os.File // item's path with partSuffix
	written  int64
	tag      string // of what is written
	restarts int
}

const partSuffix = ".part"

// get fetches one item to its path below directory, unless it is there and right from an earlier attempt.
func (s *source) get(ctx context.Context, one item, directory string) error {
	path := filepath.Join(directory, filepath.FromSlash(one.path))
	if one.checked() && one.right(path) == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	file, err := os.OpenFile(path+partSuffix, os.O_RDWR|os.O_CREATE, 0o640) // #nosec G304 -- below our own directory, see local
	if err != nil {
		return err
	}
	defer file.Close()
	d := &download{source: s, item: one, file: file, tag: one.tag}
	if one.checked() { // what an earlier attempt left is worth to go on with: the checksum tells
		d.written, _ = file.Seek(0, io.SeekEnd)
	}
	if d.written > one.size || !one.checked() {
		if err := d.restart(); err != nil {
			return err
		}
	}
	for {
		if err := s.persist(ctx, d.once); err != nil {
			if errors.Is(err, ErrChanged) { // what is there is of no use to a later attempt
				_ = os.Remove(path + partSuffix)
			}
			return fmt.Errorf("%s/%s: %w", s.name, one.key, err)
		}
		if err := file.Sync(); err != nil {
			return err
		}
		err := one.right(path + partSuffix)
		if err == nil {
			return os.Rename(path+partSuffix, path)
		}
		if d.restarts++; d.restarts >= maxRestarts {
			_ = os.Remove(path + partSuffix)
			return fmt.Errorf("%s/%s: %w", s.name, one.key, err)
		}
		if err := d.restart(); err != nil {
			return err
		}
	}
}

func (d *download) restart() error {
	d.written = 0
	return d.file.Truncate(0)
}

// once reads from where the file ends.
func (d *download) once(ctx context.Context, moved *atomic.Int64) (progress bool, err error) {
	if d.written == d.size {
		return false, nil
	}
	content, err := d.store.Open(ctx, d.key, d.written, d.tag)
	if err != nil {
		return false, err
	}
	defer content.Close()
	switch {
	case content.Size >= 0 && content.Size != d.size:
		return false, fmt.Errorf("%w: it has %d bytes; %d were announced", ErrChanged, content.Size, d.size)
	case content.Offset == d.written:
	case content.Offset == 0:
		if d.restarts++; d.restarts >= maxRestarts {
			return false, fmt.Errorf("%w: it was begun %d times", ErrChanged, d.restarts)
		}
		if err := d.restart(); err != nil {
			return false, err
		}
	default:
		return false, fmt.Errorf("%w: asked for the bytes from %d on, the server gave those from %d on", ErrRefused, d.written, content.Offset)
	}
	d.tag = content.Tag
	if _, err := d.file.Seek(d.written, io.SeekStart); err != nil {
		return false, err
	}
	n, err := io.Copy(d.file, io.LimitReader(counted{content, moved}, d.size-d.written))
	d.written += n
	if err != nil {
		return n > 0, err
	}
	if d.written < d.size {
		return n > 0, fmt.Errorf("%w: the connection ended after %d of %d bytes", io.ErrUnexpectedEOF, d.written, d.size)
	}
	if extra, _ := io.ReadFull(content, make([]byte, 1)); extra > 0 {
		return true, fmt.Errorf("%w: it has more than the %d bytes that were announced", ErrChanged, d.size)
	}
	return true, nil
}

// checked says whether a checksum is known.
func (i *item) checked() bool { return i.sha256 != nil || i.md5 != nil }

// right compares a file with what is known of it.
func (i *item) right(path string) error {
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%w: it is no file", fs.ErrInvalid)
	case info.Size() != i.size:
		return fmt.Errorf("%w: %d bytes instead of %d", ErrChanged, info.Size(), i.size)
	case !i.checked():
		return nil
	}
	var sum hash.Hash
	name, want := "SHA-256", i.sha256
	if want != nil {
		sum = sha256.New()
	} else {
		name, want, sum = "MD5", i.md5, md5.New() // #nosec G401
	}
	file, err := os.Open(path) // #nosec G304
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := io.Copy(sum, file); err != nil {
		return err
	}
	if got := sum.Sum(nil); !bytes.Equal(got, want) {
		return fmt.Errorf("%w: its %s is %x; it must be %x", ErrChanged, name, got, want)
	}
	return nil
}
