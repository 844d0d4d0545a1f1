package remote

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
)

// IndexFile is the file below the base that names the versions.
const IndexFile = "index.json"

const maxIndex = 8 << 20 // bytes; 10,000 files are about 2 MiB

// Index is what IndexFile says: {"versions": {"3": {"archive": ...} or {"files": [...]}}}.
type Index struct {
	Versions map[string]Release `json:"versions"`
}

// Release is one version: an archive (.tar.gz, .tgz, .tar, .zip) below the base, or files below BASE/VERSION.
type Release struct {
	Archive string `json:"archive,omitempty"`
	Size    int64  `json:"size,omitempty"`   // of the archive
	SHA256  string `json:"sha256,omitempty"` // of the archive
	Files   []File `json:"files,omitempty"`
}

// File is one file of a release.
type File struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// item is one object to be fetched, and how it is known to be right.
type item struct {
	key    string // below the base
	path   string // below the version's directory
	size   int64
	sha256 []byte
	md5    []byte
	tag    string // of a listing
}

// plan is how a version is fetched.
type plan struct {
	items   []item
	archive bool   // the only item is one
	listed  string // the folder, if it was listed and not indexed
}

// index reads the index; nil without an error if there is none and the store can be listed instead.
func (s *source) index(ctx context.Context) (*Index, error) {
	text, err := s.small(ctx, IndexFile, maxIndex)
	if errors.Is(err, ErrNotFound) {
		if _, err := s.store.Folders(ctx); !errors.Is(err, errNoListing) {
			return nil, err
		}
		return nil, fmt.Errorf("%s has no %s, which a web server must have: %w", s.name, IndexFile, ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	index := &Index{}
	if err := json.Unmarshal(text, index); err != nil {
		return nil, fmt.Errorf("%w: %s/%s: %w", ErrRefused, s.name, IndexFile, err)
	}
	for version := range index.Versions {
		if _, err := number(version); err != nil {
			return nil, fmt.Errorf("%w: %s/%s: versions.%s is no version: versions are whole numbers", ErrRefused, s.name, IndexFile, version)
		}
	}
	return index, nil
}

// number reads a version's name as TF-Serving does: leading zeros are allowed.
func number(name string) (int64, error) {
	n, err := strconv.ParseUint(name, 10, 63)
	return int64(n), err
}

// Versions lists the versions.
func (s *source) Versions(ctx context.Context) ([]int64, error) {
	names, _, err := s.names(ctx)
	if err != nil {
		return nil, err
	}
	var all []int64
	for n := range names {
		all = append(all, n)
	}
	slices.Sort(all)
	return all, nil
}

// names are the versions and what each is called; the index if there is one.
func (s *source) names(ctx context.Context) (map[int64]string, *Index, error) {
	index, err := s.index(ctx)
	if err != nil {
		return nil, nil, err
	}
	var given []string
	if index != nil {
		for name := range index.Versions {
			given = append(given, name)
		}
	} else if given, err = s.store.Folders(ctx); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", s.name, err)
	}
	names := map[int64]string{}
	for _, name := range given {
		if n, err := number(name); err == nil {
			names[n] = name
		}
	}
	return names, index, nil
}

// plan finds out what a version consists of.
func (s *source) plan(ctx context.Context, version int64) (*plan, error) {
	names, index, err := s.names(ctx)
	if err != nil {
		return nil, err
	}
	name, known := names[version]
	switch {
	case !known:
		return nil, fmt.Errorf("%s has no version %d: %w", s.name, version, ErrNotFound)
	case index == nil:
		return s.listed(ctx, name)
	}
	p, err := index.Versions[name].plan(name)
	if err == nil {
		err = s.bounded(p)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s/%s: versions.%s: %w", ErrRefused, s.name, IndexFile, name, err)
	}
	return p, nil
}

func (r Release) plan(name string) (*plan, error) {
	if (r.Archive == "") == (len(r.Files) == 0) {
		return nil, errors.New("it must have either archive or files")
	}
	files, p := r.Files, &plan{archive: r.Archive != ""}
	if p.archive {
		if unpacker(r.Archive) == nil {
			return nil, fmt.Errorf("archive %q is none of %s", r.Archive, strings.Join(archives(), ", "))
		}
		files = []File{{r.Archive, r.Size, r.SHA256}}
	}
	seen := map[string]bool{}
	for i, file := range files {
		sum, err := hex.DecodeString(file.SHA256)
		switch bad := local(file.Path); {
		case bad != nil:
			return nil, bad
		case err != nil || len(sum) != 32:
			return nil, fmt.Errorf("sha256 of %q is %q; it must be 64 hexadecimal digits", file.Path, file.SHA256)
		case file.Size < 0 || p.archive && file.Size == 0:
			return nil, fmt.Errorf("size of %q is %d", file.Path, file.Size)
		case seen[file.Path]:
			return nil, fmt.Errorf("files[%d] names %q again", i, file.Path)
		}
		seen[file.Path] = true
		key := path.Join(name, file.Path)
		if p.archive {
			key = file.Path
		}
		p.items = append(p.items, item{key: key, path: file.Path, size: file.Size, sha256: sum})
	}
	return p, nil
}

// listed plans by what a store shows.
func (s *source) listed(ctx context.Context, folder string) (*plan, error) {
	p := &plan{listed: folder}
	err := s.store.List(ctx, folder, func(object Object) error {
		if err := local(object.Path); err != nil {
			return err
		}
		if len(p.items) >= s.limits.Files {
			return fmt.Errorf("%w: more than the %d files that are accepted", ErrRefused, s.limits.Files)
		}
		p.items = append(p.items, item{key: path.Join(folder, object.Path), path: object.Path, size: object.Size, md5: object.MD5, tag: object.Tag})
		return nil
	})
	if err == nil {
		err = s.bounded(p)
	}
	if err != nil {
		return nil, fmt.Errorf("%s/%s: %w", s.name, folder, err)
	}
	slices.SortFunc(p.items, func(a, b item) int { return strings.Compare(a.path, b.path) })
	return p, nil
}

func (s *source) bounded(p *plan) error {
	total := int64(0)
	for _, item := range p.items {
		if total += item.size; item.size > s.limits.Bytes || total > s.limits.Bytes {
			return fmt.Errorf("%w: it is larger than the %d bytes that are accepted", ErrRefused, s.limits.Bytes)
		}
	}
	if len(p.items) > s.limits.Files {
		return fmt.Errorf("%w: it has %d files; at most %d are accepted", ErrRefused, len(p.items), s.limits.Files)
	}
	return nil
}

// small reads a small object whole.
func (s *source) small(ctx context.Context, key string, most int64) (text []byte, err error) {
	err = s.persist(ctx, func(ctx context.Context, moved *atomic.Int64) (bool, error) {
		content, err := s.store.Open(ctx, key, 0, "")
		if err != nil {
			return false, err
		}
		defer content.Close()
		text, err = io.ReadAll(io.LimitReader(counted{content, moved}, most+1))
		switch {
		case err != nil:
			return false, err
		case int64(len(text)) > most:
			return false, fmt.Errorf("%w: it is larger than %d bytes", ErrRefused, most)
		case content.Size >= 0 && content.Size != int64(len(text)):
			return false, io.ErrUnexpectedEOF
		}
		return false, nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s/%s: %w", s.name, key, err)
	}
	return text, nil
}
