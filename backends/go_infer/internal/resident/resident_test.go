package resident

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

const page = 0x1000

// pages is a pagemap whose entries are, by page number, those; any other page is absent.
type pages map[int64]uint64

func (p pages) ReadAt(into []byte, offset int64) (int, error) {
	for at := 0; at < len(into); at += entryBytes {
		binary.NativeEndian.PutUint64(into[at:], p[(offset+int64(at))/entryBytes])
	}
	return len(into), nil
}

func TestOnlyUnwrittenPagesOfTheLibrariesAreMeant(t *testing.T) {
	file, written := uint64(present|fromFile), uint64(present)
	for _, c := range []struct {
		name, maps string
		pages      pages
		want       Set
		says       string
	}{
		{"pages in memory, apart and in a row", "1000-6000 r-xp 00000000 fe:00 12   /lib/libtensorflow_cc.so.2\n",
			pages{1: file, 2: file, 4: file, 6: file}, Set{{0x1000, 0x3000}, {0x4000, 0x5000}}, ""},
		{"mappings that touch", "1000-2000 r--p 00000000 fe:00 12   /lib/libtensorflow_cc.so.2\n2000-3000 r-xp 00001000 fe:00 12   /lib/libtensorflow_cc.so.2\n",
			pages{1: file, 2: file}, Set{{0x1000, 0x3000}}, ""},
		{"what the linker wrote before it made it read-only", "1000-4000 r--p 00000000 fe:00 12   /lib/libtensorflow_cc.so.2\n",
			pages{1: file, 2: written, 3: file}, Set{{0x1000, 0x2000}, {0x3000, 0x4000}}, ""},
		{"swapped out", "1000-2000 r--p 00000000 fe:00 12   /lib/libtensorflow_cc.so.2\n", pages{1: fromFile}, nil, ""},
		{"can be written", "1000-2000 rw-p 00000000 fe:00 12   /lib/libtensorflow_cc.so.2\n", pages{1: file}, nil, ""},
		{"cannot be read", "1000-2000 ---p 00000000 fe:00 12   /lib/libtensorflow_cc.so.2\n", pages{1: file}, nil, ""},
		{"shared", "1000-2000 r--s 00000000 fe:00 12   /lib/libtensorflow_cc.so.2\n", pages{1: file}, nil, ""},
		{"another library", "1000-2000 r-xp 00000000 fe:00 12   /lib/libc.so.6\n", pages{1: file}, nil, ""},
		{"another file of the directory", "1000-2000 r-xp 00000000 fe:00 12   /libtensorflow/libz.so\n", pages{1: file}, nil, ""},
		{"a path with spaces, of a file that was replaced", "1000-2000 r-xp 00000000 fe:00 12   /my libs/libtensorflow_cc.so.2 (deleted)\n",
			pages{1: file}, Set{{0x1000, 0x2000}}, ""},
		{"no file", "1000-2000 r-xp 00000000 00:00 0 \n2000-3000 rw-p 00000000 00:00 0   [heap]\n3000-4000 r--p 00000000 00:00 0\n", pages{1: file, 2: file, 3: file}, nil, ""},
		{"addresses of the kernel", "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0   [vsyscall]\n", nil, nil, ""},
		{"nothing", "", nil, nil, ""},
		{"no address", "hello world\n", nil, nil, `"hello world\n" is no mapping`},
		{"an end before its begin", "2000-1000 r-xp 00000000 fe:00 12   /lib/libtensorflow_cc.so.2\n", nil, nil, "is no mapping"},
		{"no inode", "1000-2000 r-xp 00000000 fe:00", nil, nil, "is no mapping"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := read(c.maps, c.pages, page, func(path string) bool { return strings.HasPrefix(filepath.Base(path), "libtensorflow") })
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Fatalf("error %v, want %q", err, c.says)
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("%x, want %x", got, c.want)
			}
		})
	}
}

func TestALongMappingIsReadInParts(t *testing.T) {
	const last = 40_000 // beyond two reads
	got, err := read("1000-10000000 r-xp 00000000 fe:00 12   /lib/x\n", pages{1: present | fromFile, last: present | fromFile}, page,
		func(string) bool { return true })
	if want := (Set{{page, 2 * page}, {last * page, (last + 1) * page}}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%x, %v; want %x", got, err, want)
	}
}

const tmpfs = 0x01021994 // statfs(2)

// A file of this test's own, mapped as a library is: nobody else has its pages.
func TestWhatIsGivenBackIsReadAgain(t *testing.T) {
	content := make([]byte, 3*Piece)
	for i := range content {
		content[i] = byte(i >> 12)
	}
	path := filepath.Join(t.TempDir(), "library")
	var system syscall.Statfs_t
	if err := syscall.Statfs(filepath.Dir(path), &system); err == nil && system.Type == tmpfs {
		t.Skip("files of a tmpfs have no disk to be read from again")
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Sync(); err != nil { // what was not written to the disk yet cannot be reclaimed
		t.Fatal(err)
	}
	memory, err := syscall.Mmap(int(file.Fd()), 0, len(content), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Munmap(memory) }()
	relocated := os.Getpagesize()
	memory[relocated] = 0xee // as the dynamic linker does, before it says that nobody may
	content[relocated] = 0xee
	if err := syscall.Mprotect(memory, syscall.PROT_READ); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(memory, content) { // touches it
		t.Fatal("the file is not what was written")
	}
	own := func(mapped string) bool { return mapped == path }
	before, err := Read(own)
	if err != nil {
		t.Fatal(err)
	}
	if want := len(content) - relocated; before.Bytes() != want {
		t.Fatalf("%d bytes are resident, want %d: all that was not written", before.Bytes(), want)
	}
	asked, err := Out(before)
	if errors.Is(err, ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	after, err := Read(own)
	if err != nil {
		t.Fatal(err)
	}
	if after.Bytes() > before.Bytes()/2 {
		t.Errorf("%d of %d bytes are still resident", after.Bytes(), before.Bytes())
	}
	if asked != before.Bytes() {
		t.Errorf("%d bytes were asked for, want %d", asked, before.Bytes())
	}
	if !bytes.Equal(memory, content) {
		t.Error("what was given back is not what was there")
	}
}

// TestWhatWasAskedForBeforeAFailureIsTold: the kernel reclaims nothing that is locked in memory.
func TestWhatWasAskedForBeforeAFailureIsTold(t *testing.T) {
	size := os.Getpagesize()
	memory, err := syscall.Mmap(-1, 0, 2*Piece, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Munmap(memory) }()
	if err := syscall.Mlock(memory[Piece : Piece+size]); err != nil {
		t.Skip(err)
	}
	begin := uintptr(unsafe.Pointer(&memory[0]))
	if _, err := Out(Set{{begin, begin + uintptr(size)}}); err != nil {
		t.Skip(err)
	}
	if asked, err := Out(Set{{begin, begin + 2*Piece}}); asked != Piece || !errors.Is(err, ErrUnsupported) {
		t.Errorf("asked for %d bytes until %v; want %d and that this is unsupported", asked, err, Piece)
	}
}
