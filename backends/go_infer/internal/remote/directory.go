package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
)

// directory is file:///DIR: a disk that others write to, a network mount. Links inside may not lead out of it.
type directory struct{ path string }

func openDirectory(address *url.URL) (Store, error) {
	if address.Host != "" && address.Host != "localhost" {
		return nil, fmt.Errorf("%w: file:// has no host; write file:///DIRECTORY", ErrRefused)
	}
	if !filepath.IsAbs(address.Path) {
		return nil, fmt.Errorf("%w: the directory must be absolute: file:///DIRECTORY", ErrRefused)
	}
	return &directory{path: address.Path}, nil
}

// within opens the directory anew each time: a mount may come and go.
func (d *directory) within(use func(root *os.Root) error) error {
	root, err := os.OpenRoot(d.path)
	if err != nil {
		return absent(err)
	}
	defer root.Close()
	return use(root)
}

func absent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return err
}

// tagOf changes with the file.
func tagOf(info fs.FileInfo) string { return fmt.Sprint(info.Size(), info.ModTime().UnixNano()) }

func (d *directory) Open(_ context.Context, key string, offset int64, tag string) (content *Content, err error) {
	return content, d.within(func(root *os.Root) error {
		file, err := root.Open(filepath.FromSlash(key))
		if err != nil {
			return absent(err)
		}
		info, err := file.Stat()
		if err != nil || !info.Mode().IsRegular() {
			_ = file.Close()
			return errors.Join(err, fmt.Errorf("%w: it is no file", ErrRefused))
		}
		now := tagOf(info)
		if tag != "" && tag != now {
			offset = 0
		}
		if _, err := file.Seek(offset, io.SeekStart); err != nil {
			_ = file.Close()
			return err
		}
		content = &Content{file, offset, info.Size(), now}
		return nil
	})
}

func (d *directory) Folders(context.Context) (names []string, err error) {
	return names, d.within(func(root *os.Root) error {
		entries, err := fs.ReadDir(root.FS(), ".")
		for _, entry := range entries {
			if entry.IsDir() {
				names = append(names, entry.Name())
			}
		}
		return err
	})
}

func (d *directory) List(ctx context.Context, folder string, visit func(Object) error) error {
	return d.within(func(root *os.Root) error {
		below, err := fs.Sub(root.FS(), folder)
		if err != nil {
			return err
		}
		return fs.WalkDir(below, ".", func(path string, entry fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return absent(err)
			case ctx.Err() != nil:
				return ctx.Err()
			case entry.IsDir():
				return nil
			case !entry.Type().IsRegular():
				return fmt.Errorf("%w: %s is a link or no file", ErrRefused, path)
			}
			info, err := entry.Info()
			if err != nil {
				return absent(err)
			}
			return visit(Object{Path: path, Size: info.Size(), Tag: tagOf(info)})
		})
	})
}

func (d *directory) Close() error { return nil }
