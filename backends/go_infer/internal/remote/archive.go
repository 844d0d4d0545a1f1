package remote

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// unpackers, by the archive's name.
var unpackers = map[string]func(file *os.File, visit func(name string, mode fs.FileMode, content io.Reader) error) error{
	".tar.gz": tarGz,
	".tgz":    tarGz,
	".tar":    func(file *os.File, visit func(string, fs.FileMode, io.Reader) error) error { return untar(file, visit) },
	".zip":    unzip,
}

func archives() []string {
	var all []string
	for suffix := range unpackers {
		all = append(all, suffix)
	}
	slices.Sort(all)
	return all
}

func unpacker(name string) func(*os.File, func(string, fs.FileMode, io.Reader) error) error {
	for suffix, unpack := range unpackers {
		if strings.HasSuffix(name, suffix) {
			return unpack
		}
	}
	return nil
}

// unpack unpacks an archive into directory, which is emptied before, and returns where the version's files are: directory, or the only
// directory in it if the archive has the version's directory at its top. It accepts files and directories below, and nothing else: no
// links, no devices, no path that leaves, no file twice, no more bytes than the limits allow, however small the archive is.
func (s *source) unpack(ctx context.Context, archive, directory string) (string, error) {
	if err := os.RemoveAll(directory); err != nil {
		return "", err
	}
	if err := os.MkdirAll(directory, 0o750); err != nil {
		return "", err
	}
	file, err := os.Open(archive) // #nosec G304
	if err != nil {
		return "", err
	}
	defer file.Close()
	left, entries := s.limits.Bytes, 0
	err = unpacker(archive)(file, func(name string, mode fs.FileMode, content io.Reader) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if entries++; entries > 2*s.limits.Files { // directories too
			return fmt.Errorf("%w: it has more than %d entries", ErrRefused, 2*s.limits.Files)
		}
		name = strings.TrimPrefix(name, "./")
		if mode.IsDir() {
			name = strings.TrimSuffix(name, "/")
			if name == "" || name == "." {
				return nil
			}
		}
		if err := local(name); err != nil {
			return err
		}
		target := filepath.Join(directory, filepath.FromSlash(name))
		switch {
		case mode.IsDir():
			return os.MkdirAll(target, 0o750)
		case !mode.IsRegular():
			return fmt.Errorf("%w: %q is a link or no file", ErrRefused, name)
		}
		n, err := write(target, content, left)
		left -= n
		return err
	})
	switch {
	case errors.Is(err, errTooMuch):
		return "", fmt.Errorf("%w: it unpacks to more than the %d bytes that are accepted", ErrRefused, s.limits.Bytes)
	case errors.Is(err, ErrRefused), ctx.Err() != nil:
		return "", err
	case err != nil:
		return "", fmt.Errorf("it cannot be unpacked: %w", err)
	}
	return top(directory)
}

// block is what each file of an archive is taken to have of the disk's blocks beside its bytes, at most: those of ext4, XFS and tmpfs.
const block = 4096

// measure is how many bytes of a disk an archive unpacks to, as unpack would.
func (s *source) measure(ctx context.Context, archive string) (bytes int64, err error) {
	file, err := os.Open(archive) // #nosec G304
	if err != nil {
		return 0, err
	}
	defer file.Close()
	err = unpacker(archive)(file, func(_ string, _ fs.FileMode, content io.Reader) error {
		bytes += block
		if ctx.Err() != nil || content == nil {
			return context.Cause(ctx)
		}
		n, err := io.Copy(io.Discard, io.LimitReader(content, s.limits.Bytes+1))
		if bytes += n; err == nil && bytes > s.limits.Bytes+int64(2*s.limits.Files)*block {
			err = errTooMuch
		}
		return err
	})
	return bytes, err
}

var errTooMuch = errors.New("too many bytes")

// write makes a new file of at most left bytes.
func write(target string, content io.Reader, left int64) (int64, error) {
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return 0, err
	}
	file, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640) // #nosec G304
	if errors.Is(err, fs.ErrExist) {
		return 0, fmt.Errorf("%w: %q is there twice", ErrRefused, filepath.Base(target))
	}
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(file, io.LimitReader(content, left+1))
	if err == nil && n > left {
		err = errTooMuch
	}
	if err == nil {
		err = file.Sync()
	}
	return n, errors.Join(err, file.Close())
}

func top(directory string) (string, error) {
	entries, err := os.ReadDir(directory)
	if err != nil {
		return "", err
	}
	if len(entries) == 0 {
		return "", fmt.Errorf("%w: the archive is empty", ErrRefused)
	}
	if len(entries) == 1 && entries[0].IsDir() {
		return filepath.Join(directory, entries[0].Name()), nil
	}
	return directory, nil
}

func tarGz(file *os.File, visit func(string, fs.FileMode, io.Reader) error) error {
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		return err
	}
	return untar(unzipped, visit)
}

func untar(from io.Reader, visit func(string, fs.FileMode, io.Reader) error) error {
	archive := tar.NewReader(from)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			_, err := io.Copy(io.Discard, io.LimitReader(from, 1<<20)) // gzip's checksum is at its end
			return err
		}
		if err != nil {
			return err
		}
		mode := header.FileInfo().Mode()
		switch header.Typeflag {
		case tar.TypeReg, tar.TypeDir:
		case tar.TypeXGlobalHeader:
			continue
		default:
			mode |= fs.ModeIrregular
			mode &^= fs.ModeDir
		}
		if err := visit(header.Name, mode, archive); err != nil {
			return err
		}
	}
}

func unzip(file *os.File, visit func(string, fs.FileMode, io.Reader) error) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	archive, err := zip.NewReader(file, info.Size())
	if err != nil {
		return err
	}
	for _, entry := range archive.File {
		if err := unzipOne(entry, visit); err != nil {
			return err
		}
	}
	return nil
}

func unzipOne(entry *zip.File, visit func(string, fs.FileMode, io.Reader) error) error {
	mode := entry.Mode()
	if strings.HasSuffix(entry.Name, "/") {
		return visit(path.Clean(entry.Name), fs.ModeDir, nil)
	}
	content, err := entry.Open()
	if err != nil {
		return err
	}
	defer content.Close()
	return visit(entry.Name, mode, content)
}
