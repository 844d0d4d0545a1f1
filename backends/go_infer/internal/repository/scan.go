package repository

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// Place is where a version lies. TF-Serving allows leading zeros in the directory's name, so the number alone does not say.
type Place struct {
	Number    int64
	Directory string
	From      string // address of the repository that it must be fetched from first; "": it is there
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
			places = append(places, Place{Number: int64(number), Directory: filepath.Join(base, entry.Name())})
		}
	}
	if len(places) == 0 {
		return nil, fmt.Errorf("model base path %s has no version directory (a whole number, as in %s/1/saved_model.pb)", base, base)
	}
	slices.SortStableFunc(places, func(a, b Place) int { return cmp.Compare(a.Number, b.Number) })
	return slices.CompactFunc(places, func(a, b Place) bool { return a.Number == b.Number }), nil
}
