package remote

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// small is a disk of so many kB, if the test may make one. What tests hold of it to their end does not keep it.
func small(t *testing.T, size string) string {
	t.Helper()
	place := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+size, "tmpfs", place).CombinedOutput(); err != nil {
		t.Skipf("no disk can be mounted: %v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", "-l", place).Run() })
	return place
}

// shelve puts versions there, all alike.
func (s *site) shelve(t *testing.T, versions ...int) Source {
	t.Helper()
	files, all := release(), map[string]Release{}
	for _, version := range versions {
		for name, content := range files {
			s.put(fmt.Sprint(version, "/", name), content)
		}
		all[fmt.Sprint(version)] = indexed(files)
	}
	s.index(t, all)
	return open(t, s.URL+"/models", quick())
}

func TestAVersionThatTheDiskHasNoRoomForIsRefusedAtOnceAndLeavesNothing(t *testing.T) {
	s, place := newSite(t), small(t, "200k") // for a version of 300 kB
	from := s.shelve(t, 1)
	cache, before := NewCache(filepath.Join(place, "cache"), 1<<20), int64(0)
	for attempt := range 3 {
		_, err := cache.Get(context.Background(), from, 1)
		if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "needs 0.3 MB and 0.2 MB are free; make room, or choose another disk with --remote_cache_dir") {
			t.Fatalf("attempt %d: %v", attempt, err)
		}
		if asked := s.requests.Load() - before; attempt > 0 && asked > 3 {
			t.Errorf("attempt %d asked %d times for what there is no room for", attempt, asked)
		}
		before = s.requests.Load()
	}
	if left, _ := filepath.Glob(filepath.Join(place, "cache/*/.*.partial")); len(left) > 0 || len(cache.held) > 0 {
		t.Errorf("%v is left, %v held", left, cache.held)
	}
	if out, err := exec.Command("mount", "-o", "remount,size=2m", place).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got, err := cache.Get(context.Background(), from, 1); err != nil || !there(got) {
		t.Errorf("when there is room: %v", err)
	}
}

func TestWhatNobodyUsesMakesRoomOnAFullDisk(t *testing.T) {
	s, place := newSite(t), small(t, "800k")
	from := s.shelve(t, 1, 2, 3, 4)
	large := map[string][]byte{"saved_model.pb": make([]byte, 900_000)}
	s.put("/large/1/saved_model.pb", large["saved_model.pb"])
	index, err := json.Marshal(Index{map[string]Release{"1": indexed(large)}})
	if err != nil {
		t.Fatal(err)
	}
	s.put("/large/"+IndexFile, index)
	cache := NewCache(filepath.Join(place, "cache"), 1<<30) // the disk is smaller than that
	get := func(version int64) (string, error) { return cache.Get(context.Background(), from, version) }
	first, err := get(1)
	if err != nil {
		t.Fatal(err)
	}
	second, err := get(2)
	if err != nil {
		t.Fatal(err)
	}
	cache.Release(second)
	if _, err := cache.Get(context.Background(), open(t, s.URL+"/large", quick()), 1); !errors.Is(err, ErrFull) || !there(second) {
		t.Fatalf("all that nobody uses would not be enough, and it is gone: %v", err)
	}
	third, err := get(3)
	if err != nil || !there(first) || there(second) || !there(third) {
		t.Fatalf("2, which nobody uses, should have made room: %v", err)
	}
	if _, err := get(4); !errors.Is(err, ErrFull) || !there(first) || !there(third) {
		t.Errorf("all that is there is in use: %v", err)
	}
}

func TestRoomIsMadeForTheDirectoriesOfANewSource(t *testing.T) {
	s, place := newSite(t), small(t, "2m")
	from := s.shelve(t, 1, 2)
	cache := NewCache(filepath.Join(place, "cache"), 1<<30)
	for _, version := range []int64{1, 2} {
		got, err := cache.Get(context.Background(), from, version)
		if err != nil {
			t.Fatal(err)
		}
		cache.Release(got)
	}
	var disk syscall.Statfs_t
	if err := syscall.Statfs(place, &disk); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-o", fmt.Sprint("remount,nr_inodes=", disk.Files-disk.Ffree), place).CombinedOutput(); err != nil {
		t.Skipf("no disk can be made full of files: %v: %s", err, out)
	}
	got, err := cache.Get(context.Background(), &shelf{name: "s3://new", bytes: 100}, 1)
	if err != nil || !there(got) {
		t.Errorf("what nobody uses should have made room: %v", err)
	}
}

// archived is a source of an archive whose content has so many bytes; asked counts how often it is fetched.
func archived(t *testing.T, suffix string, bytes int) (from Source, asked *atomic.Int64) {
	t.Helper()
	s, asked := newSite(t), &atomic.Int64{}
	content := make([]byte, bytes)
	if _, err := rand.NewChaCha8([32]byte{}).Read(content); err != nil { // the archive is as large
		t.Fatal(err)
	}
	name := "m" + suffix
	s.archive(t, name, archiveOf(t, suffix, []entry{{"saved_model.pb", tar.TypeReg, string(content)}}))
	s.bad = func(_ http.ResponseWriter, r *http.Request, _ []byte) bool {
		if strings.HasSuffix(r.URL.Path, name) {
			asked.Add(1)
		}
		return false
	}
	return open(t, s.URL+"/models", quick()), asked
}

// TestAnArchiveIsFetchedOnceHoweverMuchHasToMakeRoomForIt: what it unpacks to is known when it is there.
func TestAnArchiveIsFetchedOnceHoweverMuchHasToMakeRoomForIt(t *testing.T) {
	for _, suffix := range archives() {
		t.Run(suffix, func(t *testing.T) {
			cache := NewCache(filepath.Join(small(t, "1300k"), "cache"), 1<<30)
			other := &shelf{name: "s3://others", bytes: 150_000}
			var others []string
			for version := range int64(7) {
				got, err := cache.Get(context.Background(), other, version)
				if err != nil {
					t.Fatal(err)
				}
				old := time.Now().Add(time.Duration(version-10) * time.Hour)
				if err := os.Chtimes(lockOf(got), old, old); err != nil { // 0 was used first
					t.Fatal(err)
				}
				cache.Release(got)
				others = append(others, got)
			}
			from, asked := archived(t, suffix, 400_000)
			got, err := cache.Get(context.Background(), from, 3)
			if err != nil || !there(got) {
				t.Fatalf("what nobody uses should have made room: %v", err)
			}
			if asked.Load() != 1 {
				t.Errorf("it was fetched %d times", asked.Load())
			}
			if there(others[3]) || !there(others[5]) || !there(others[6]) { // 850 kB less of 1,300 are 450 for three
				t.Error("more was removed than had to be, or others")
			}
		})
	}
}

func TestAnArchiveThatTheDiskCannotHoldIsFetchedOnceAndPushesOutNothing(t *testing.T) {
	cache := NewCache(filepath.Join(small(t, "1m"), "cache"), 1<<30)
	other, err := cache.Get(context.Background(), &shelf{name: "s3://other", bytes: 100_000}, 1)
	if err != nil {
		t.Fatal(err)
	}
	cache.Release(other)
	from, asked := archived(t, ".tar.gz", 600_000)
	for attempt := range 3 {
		if _, err := cache.Get(context.Background(), from, 3); !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "MB are free") {
			t.Fatalf("attempt %d: %v", attempt, err)
		}
	}
	if asked.Load() != 1 || !there(other) {
		t.Errorf("it was fetched %d times, the other version is there: %v", asked.Load(), there(other))
	}
	if left, _ := filepath.Glob(filepath.Join(cache.Base(from), ".*.partial")); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}

// TestADiskThatFillsUpDuringAFetchFailsIt: how long a file may be is bounded, which is told as a full disk is, and takes no privilege. It
// bounds a whole process, so this is one of its own.
func TestADiskThatFillsUpDuringAFetchFailsIt(t *testing.T) {
	const alone = "REMOTE_TEST_ALONE"
	if os.Getenv(alone) == "" {
		c := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		c.Env = append(os.Environ(), alone+"=1")
		if said, err := c.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, said)
		}
		return
	}
	s := newSite(t)
	from := s.shelve(t, 1, 2)
	cache := NewCache(t.TempDir(), 1<<20)
	other, err := cache.Get(context.Background(), from, 2)
	if err != nil {
		t.Fatal(err)
	}
	cache.Release(other)
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	var usual syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &usual); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 100_000, Max: usual.Max}); err != nil {
		t.Fatal(err)
	}
	before := s.requests.Load()
	_, err = cache.Get(context.Background(), from, 1)
	asked := s.requests.Load() - before
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &usual); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, ErrFull) || !errors.Is(err, syscall.EFBIG) || !strings.Contains(err.Error(), "variables.data-00000-of-00001") {
		t.Errorf("it is told as %v", err)
	}
	if asked > 8 {
		t.Errorf("%d requests for what cannot be written", asked)
	}
	if !there(other) {
		t.Error("how long a file may be is the same without the other version, and it is gone")
	}
	entries, _ := os.ReadDir(cache.Base(from))
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), ".lock-") && entry.Name() != "2" {
			t.Errorf("%s is left", entry.Name())
		}
	}
	if got, err := cache.Get(context.Background(), from, 1); err != nil || !there(got) {
		t.Errorf("when there is room: %v", err)
	}
}
