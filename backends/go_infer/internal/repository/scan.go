package repository

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"sluicegate/go_infer/internal/modelconfig"
)

// Place is where a version lies. TF-Serving allows leading zeros in the directory's name, so the number alone does not say.
type Place struct {
	Number    int64
	Directory string
}

// Scan lists the version directories (whole numbers) below base, ascending. Of two with the same number the first name counts.
func Scan(_ context.Context, base string) ([]Place, error) {
	entries, err := os.ReadDir(base)
	if err != nil {
		return nil, fmt.Errorf("model base path: %w", err)
	}
	var places []Place
	for _, entry := range entries {
		if number, err := strconv.ParseUint(entry.Name(), 10, 63); err == nil {
			places = append(places, Place{int64(number), filepath.Join(base, entry.Name())})
		}
	}
	if len(places) == 0 {
		return nil, fmt.Errorf("model base path %s has no version directory (a whole number, as in %s/1/saved_model.pb)", base, base)
	}
	slices.SortStableFunc(places, func(a, b Place) int { return cmp.Compare(a.Number, b.Number) })
	return slices.CompactFunc(places, func(a, b Place) bool { return a.Number == b.Number }), nil
}

// Fetch brings what lies at a URL into a directory: resumed, checked, and each file in its place only when it is whole.
type Fetch func(ctx context.Context, url, into string) error

// Fetched is a Scan that brings base paths that are URLs into a directory of their own below cache first. If that fails, what was
// fetched before stays and goes on being served. Without a fetch URLs are refused.
func Fetched(cache string, fetch Fetch) func(ctx context.Context, base string) ([]Place, error) {
	return func(ctx context.Context, base string) ([]Place, error) {
		if !modelconfig.Remote(base) {
			return Scan(ctx, base)
		}
		if fetch == nil {
			return nil, fmt.Errorf("model base path %s: remote base paths are not served; copy the model to a directory", base)
		}
		sum := sha256.Sum256([]byte(base))
		into := filepath.Join(cache, hex.EncodeToString(sum[:8]))
		if err := os.MkdirAll(into, 0o750); err != nil {
			return nil, fmt.Errorf("model cache: %w", err)
		}
		if err := fetch(ctx, base, into); err != nil {
			return nil, fmt.Errorf("model base path %s: %w", base, err)
		}
		return Scan(ctx, into)
	}
}
