package savedmodel

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// mostFiles is far more than a SavedModel has: a directory with more is something else.
const mostFiles = 100_000

// Print tells whether a version's files are the same as before, without reading them. It is comparable.
type Print struct {
	Sum     uint64    // of all names, sizes and times
	Bytes   int64     // of all files
	Changed time.Time // when the last of them was written, renamed or touched (ctime: a copy that keeps dates cannot hide)
}

// Look takes the print of a version's directory.
func Look(directory string) (Print, error) {
	var p Print
	sum, files := fnv.New64a(), 0
	err := walk(directory, func(path string, info fs.FileInfo) error {
		if files++; files > mostFiles {
			return fmt.Errorf("%s: more than %d files: not a SavedModel", directory, mostFiles)
		}
		changed := info.ModTime()
		if system, ok := info.Sys().(*syscall.Stat_t); ok {
			changed = time.Unix(system.Ctim.Unix())
		}
		if changed.After(p.Changed) {
			p.Changed = changed
		}
		size := info.Size()
		if !info.Mode().IsRegular() {
			size = 0
		}
		p.Bytes += size
		_, _ = sum.Write([]byte(path))
		for _, number := range []int64{size, info.ModTime().UnixNano(), changed.UnixNano()} {
			_, _ = sum.Write(binary.LittleEndian.AppendUint64(nil, uint64(number)))
		}
		return nil
	})
	p.Sum = sum.Sum64()
	p.Changed = p.Changed.Round(0)
	return p, err
}

// walk visits everything below directory, its links followed as TensorFlow does; a link to a directory that is one of its own parents
// ends at mostFiles or the longest path. A file that vanishes meanwhile is left out.
func walk(directory string, visit func(path string, info fs.FileInfo) error) error {
	return filepath.WalkDir(directory, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			if path != directory && os.IsNotExist(err) {
				return nil
			}
			return err
		}
		info, err := os.Stat(path)
		if err != nil {
			if os.IsNotExist(err) {
				return nil
			}
			return err
		}
		if err := visit(path, info); err != nil {
			return err
		}
		if info.IsDir() && entry.Type()&fs.ModeSymlink != 0 {
			return walk(path+string(filepath.Separator), visit)
		}
		return nil
	})
}
