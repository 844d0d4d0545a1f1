// Package resident knows which pages of shared libraries are in this process's memory, and gives back those that nothing uses.
//
// Starting a large library and loading with it touches pages of it that serving never does: they count as this process's for as long as
// it runs. Out has the kernel reclaim them as it would if memory were short. That changes no content: a page of a file that was never
// written is read from the file again when somebody touches it, and no other is asked for (see Read).
//
// Sources: proc_pid_maps(5); Documentation/admin-guide/mm/pagemap.rst; madvise(2), MADV_PAGEOUT (Linux 5.4).
package resident

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// Bits of an entry of /proc/PID/pagemap. A page of a private mapping that was written is not the file's any more.
const (
	present  = 1 << 63
	fromFile = 1 << 61
)

// entryBytes is the size of such an entry.
const entryBytes = 8

// Span is memory from Begin to before End.
type Span struct{ Begin, End uintptr }

// Set is pages of memory: ascending spans that do not touch each other.
type Set []Span

// Bytes is how much memory it is.
func (s Set) Bytes() (sum int) {
	for _, span := range s {
		sum += int(span.End - span.Begin)
	}
	return sum
}

// Read is the pages in memory of this process that belong to the libraries, as they are in their files: of mappings that cannot be
// written, without what the dynamic linker wrote into them before (relocations). library says which files are meant, by their path.
func Read(library func(path string) bool) (Set, error) {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return nil, err
	}
	pages, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return nil, err
	}
	defer pages.Close()
	return read(string(maps), pages, uintptr(os.Getpagesize()), library)
}

func read(maps string, pagemap io.ReaderAt, page uintptr, library func(path string) bool) (set Set, err error) {
	entries := make([]byte, 64<<10)
	for line := range strings.Lines(maps) {
		span, path, err := unwritten(line)
		if err != nil {
			return nil, fmt.Errorf("/proc/self/maps: %w", err)
		}
		if path == "" || !library(path) {
			continue
		}
		for at := span.Begin; at < span.End; {
			wanted := entries[:min(len(entries), int((span.End-at)/page)*entryBytes)]
			if _, err := pagemap.ReadAt(wanted, int64(at/page*entryBytes)); err != nil {
				return nil, fmt.Errorf("/proc/self/pagemap: %w", err)
			}
			for ; len(wanted) > 0; wanted, at = wanted[entryBytes:], at+page {
				if binary.NativeEndian.Uint64(wanted)&(present|fromFile) != present|fromFile {
					continue
				}
				if last := len(set) - 1; last >= 0 && set[last].End == at {
					set[last].End += page
				} else {
					set = append(set, Span{at, at + page})
				}
			}
		}
	}
	return set, nil
}

// unwritten reads a line of /proc/PID/maps: "7f00-7f10 r-xp 00000000 fe:00 1234   /lib/a b.so (deleted)". The path is empty if that is no
// private mapping of a file that can be read and not written.
func unwritten(line string) (span Span, path string, err error) {
	fields, rest := [5]string{}, strings.TrimSuffix(line, "\n")
	for i := range fields {
		fields[i], rest, _ = strings.Cut(rest, " ")
	}
	begin, end, ok := strings.Cut(fields[0], "-")
	low, wrong := strconv.ParseUint(begin, 16, 64)
	high, bad := strconv.ParseUint(end, 16, 64)
	if !ok || wrong != nil || bad != nil || high < low || len(fields[1]) != 4 || fields[4] == "" {
		return span, "", fmt.Errorf("%q is no mapping", line)
	}
	path = strings.TrimLeft(rest, " ")
	if mode := fields[1]; mode[0] != 'r' || mode[1] != '-' || mode[3] != 'p' || !strings.HasPrefix(path, "/") {
		path = ""
	}
	return Span{uintptr(low), uintptr(high)}, path, nil
}

// ErrUnsupported says that this system cannot give pages back.
var ErrUnsupported = errors.New("this system has no MADV_PAGEOUT for this process (Linux 5.4 or later has, unless a filter of system calls forbids it)")
