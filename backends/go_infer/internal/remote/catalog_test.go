package remote

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestACatalogStandsWhileTheRepositoryIsGone(t *testing.T) {
	s := newSite(t)
	s.put("1/saved_model.pb", []byte("graph"))
	s.put(IndexFile, fmt.Appendf(nil, `{"versions": {"1": {"files": [{"path": "saved_model.pb", "size": 5, "sha256": "%s"}]}}}`, sum([]byte("graph"))))
	gone, changes := atomic.Bool{}, atomic.Int64{}
	s.bad = func(w http.ResponseWriter, _ *http.Request, _ []byte) bool {
		if gone.Load() {
			w.WriteHeader(http.StatusForbidden)
		}
		return gone.Load()
	}
	var said strings.Builder
	cache := NewCache(t.TempDir(), 1<<20)
	begin := func() *Catalog {
		return NewCatalog(cache, quick(), 0, 1, slog.New(slog.NewTextHandler(&said, nil)), func() { changes.Add(1) })
	}
	address, ctx := s.URL+"/models", context.Background()
	c := begin()
	versions, place, err := c.Versions(ctx, address)
	if err != nil || !slices.Equal(versions, []int64{1}) {
		t.Fatal(versions, err)
	}
	release, err := c.Fetch(ctx, address, 1)
	if err != nil || !there(place(1)) {
		t.Fatal(err)
	}
	release()
	gone.Store(true)
	for deadline := time.Now().Add(5 * time.Second); c.Unreachable() == 0; {
		if versions, _, err := c.Versions(ctx, address); err != nil || len(versions) != 1 {
			t.Fatalf("while it is gone: %v, %v", versions, err)
		}
		if time.Now().After(deadline) {
			t.Fatal("nobody noticed")
		}
	}
	_ = c.Close()
	if changes.Load() != 1 || strings.Count(said.String(), "cannot be listed") != 1 {
		t.Errorf("%d changes; said %s", changes.Load(), said.String())
	}
	c = begin() // another process, which begins without the server
	defer c.Close()
	if versions, _, err := c.Versions(ctx, address); err != nil || len(versions) != 1 {
		t.Errorf("what is in the cache should be there: %v, %v", versions, err)
	}
	if release, err := c.Fetch(ctx, address, 1); err != nil || c.Fetched() != 0 {
		t.Errorf("a version in the cache was fetched again: %v", err)
	} else {
		release()
	}
	if _, err := c.Fetch(ctx, address, 2); err == nil || c.Failed() != 1 {
		t.Errorf("a version that cannot be had: %v", err)
	}
	if _, _, err := c.Versions(ctx, s.URL+"/other"); err == nil || !strings.Contains(err.Error(), "has no index.json") {
		t.Errorf("nothing known at all: %v", err)
	}
}
