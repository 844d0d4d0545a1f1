package remote

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// shelf is a source whose versions are all of the same size.
type shelf struct {
	name    string
	bytes   int
	fetched atomic.Int64
	fails   error
}

func (s *shelf) String() string                            { return s.name }
func (s *shelf) Close() error                              { return nil }
func (s *shelf) Versions(context.Context) ([]int64, error) { return []int64{1, 2, 3}, nil }

func (s *shelf) Fetch(_ context.Context, _ int64, directory string) error {
	s.fetched.Add(1)
	if s.fails != nil {
		return s.fails
	}
	if err := os.Mkdir(directory, 0o750); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(directory, "saved_model.pb"), make([]byte, s.bytes), 0o600)
}

func there(directory string) bool {
	_, err := os.Stat(filepath.Join(directory, "saved_model.pb"))
	return err == nil
}

func TestAVersionIsFetchedOnceAndTheLeastRecentlyUsedGoes(t *testing.T) {
	cache, one := NewCache(t.TempDir(), 250), &shelf{name: "s3://a", bytes: 100}
	places := map[int64]string{}
	get := func(version int64, hold bool) {
		t.Helper()
		directory, err := cache.Get(context.Background(), one, version)
		if err != nil {
			t.Fatal(err)
		}
		old := time.Now().Add(time.Duration(version-10) * time.Hour)
		if err := os.Chtimes(lockOf(directory), old, old); err != nil { // 1 was used first
			t.Fatal(err)
		}
		places[version] = directory
		if !hold {
			cache.Release(directory)
		}
	}
	get(1, true)
	get(2, false)
	get(1, false)
	if one.fetched.Load() != 2 {
		t.Errorf("%d fetches, want 2", one.fetched.Load())
	}
	get(3, false)
	if !there(places[1]) || there(places[2]) || !there(places[3]) {
		t.Error("1 is held, so 2, which nobody uses, should have gone")
	}
	cache.Release(places[1])
	get(4, false)
	if there(places[1]) || !there(places[3]) || !there(places[4]) {
		t.Error("1 was used before 3 and should have gone")
	}
	if filepath.Dir(places[1]) == cache.Base(&shelf{name: "s3://b"}) {
		t.Error("two sources share a directory")
	}
}

func TestManyWhoWantTheSameVersionFetchItOnce(t *testing.T) {
	directory, one := t.TempDir(), &shelf{name: "s3://a", bytes: 100}
	caches := []*Cache{NewCache(directory, 1000), NewCache(directory, 1000)} // as two processes
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() {
			if place, err := caches[i%2].Get(context.Background(), one, 1); err != nil || !there(place) {
				t.Errorf("%s: %v", place, err)
			}
		})
	}
	group.Wait()
	if one.fetched.Load() != 1 {
		t.Errorf("%d fetches", one.fetched.Load())
	}
}

func TestWhatAnotherProcessHoldsIsLeftAlone(t *testing.T) {
	directory, one := t.TempDir(), &shelf{name: "s3://a", bytes: 100}
	mine, theirs := NewCache(directory, 150), NewCache(directory, 150) // as two processes
	get := func(cache *Cache, version int64) string {
		t.Helper()
		place, err := cache.Get(context.Background(), one, version)
		if err != nil {
			t.Fatal(err)
		}
		return place
	}
	first := get(theirs, 1)
	get(theirs, 1)
	second := get(mine, 2)
	mine.Release(second)
	theirs.Release(first)
	if third := get(mine, 3); !there(first) || there(second) || !there(third) {
		t.Error("1 is held by another process, so 2, which nobody holds, should have gone")
	}
	theirs.Release(first)
	if get(mine, 4); there(first) {
		t.Error("1 is not held any more and should have gone")
	}
	if len(theirs.seen) != 0 {
		t.Errorf("%v are still open", theirs.seen)
	}
}

func TestAFailedFetchIsToldAndHoldsNothing(t *testing.T) {
	cache, one := NewCache(t.TempDir(), 1000), &shelf{name: "s3://a", fails: ErrStalled}
	if _, err := cache.Get(context.Background(), one, 1); !errors.Is(err, ErrStalled) || len(cache.held) != 0 {
		t.Errorf("%v, held %v", err, cache.held)
	}
	unlock, err := tryLock(filepath.Join(cache.Base(one), ".lock-1"))
	if err != nil || unlock == nil {
		t.Fatal("the lock was not given back")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if _, err := cache.Get(ctx, one, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while another fetches: %v", err)
	}
	unlock()
}

func TestLeftoversCountAndGoFirst(t *testing.T) {
	cache, one := NewCache(t.TempDir(), 150), &shelf{name: "s3://a", bytes: 100}
	base := cache.Base(one)
	for _, name := range []string{".9.partial/files/x", ".removed-8/x"} {
		path := filepath.Join(base, name)
		_ = os.MkdirAll(filepath.Dir(path), 0o750)
		_ = os.WriteFile(path, make([]byte, 100), 0o600)
	}
	old := time.Now().Add(-time.Hour)
	_ = os.Chtimes(filepath.Join(base, ".9.partial"), old, old)
	place, err := cache.Get(context.Background(), one, 1)
	if err != nil || !there(place) {
		t.Fatal(err)
	}
	for _, name := range []string{".9.partial", ".removed-8"} {
		if _, err := os.Stat(filepath.Join(base, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there", name)
		}
	}
}

// A kill between the rename and the removal of what was fetched left an archive beside the version that was unpacked from it.
func TestWhatACrashLeftOfAFetchGoesWhenTheVersionIsUsed(t *testing.T) {
	cache, one := NewCache(t.TempDir(), 1000), &shelf{name: "s3://a", bytes: 100}
	directory, err := cache.Get(context.Background(), one, 1)
	if err != nil {
		t.Fatal(err)
	}
	cache.Release(directory)
	left := filepath.Join(partial(directory), "archive")
	if err := errors.Join(os.MkdirAll(left, 0o750), os.WriteFile(filepath.Join(left, "1.tar"), make([]byte, 100), 0o600)); err != nil {
		t.Fatal(err)
	}
	again, err := cache.Get(context.Background(), one, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer cache.Release(again)
	if _, err := os.Lstat(partial(directory)); !errors.Is(err, os.ErrNotExist) || !there(again) || one.fetched.Load() != 1 {
		t.Errorf("what is left: %v; the version is there: %v; %d fetches", err, there(again), one.fetched.Load())
	}
}
