// Package remote fetches versions of models from where they are kept: a directory, a web server or a bucket.
//
// Contract: Source.Versions lists what there is; Source.Fetch brings one version into a directory that does not exist before it is complete
// and checked. What is cut is resumed, what changes in between is begun again, what stalls is given up, and what is half there waits beside
// the directory for the next attempt.
//
// What a repository looks like (docs/repositories.md): BASE/index.json names the versions, each an archive or a list of files, with sizes
// and SHA-256; directories and buckets may do without it, then BASE/N/ is version N, checked by size, MD5 (where the bucket knows it), and
// by looking the same before and after.
package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// Source is one model's versions somewhere else. Safe for concurrent use.
type Source interface {
	// Versions lists what can be fetched, ascending.
	Versions(ctx context.Context) ([]int64, error)
	// Fetch brings a version into directory, which must not exist, by a rename at the end. After an error nothing is there, but what was
	// fetched waits in a hidden directory beside it. Only one Fetch into the same directory at a time.
	Fetch(ctx context.Context, version int64, directory string) error
	// String is the address without what is secret in it.
	String() string
	Close() error
}

// Limits bound what fetching may cost.
type Limits struct {
	Total    time.Duration // one Fetch
	Window   time.Duration // in which at least Floor bytes must move, else the connection is given up
	Floor    int64         // bytes
	Attempts int           // in a row without a byte
	Backoff  time.Duration // after the first failure; doubles up to 5 s
	Parallel int           // files at the same time
	Bytes    int64         // of one version, unpacked
	Files    int           // of one version
}

// Defaults are limits for models of some gigabytes.
func Defaults() Limits {
	return Limits{Total: time.Hour, Window: 15 * time.Second, Floor: 16 << 10, Attempts: 5, Backoff: 200 * time.Millisecond,
		Parallel: 4, Bytes: 32 << 30, Files: 10_000}
}

// Errors to compare with errors.Is.
var (
	ErrNotFound  = errors.New("not found")
	ErrRefused   = errors.New("refused") // no attempt will change it
	ErrStalled   = errors.New("stalled")
	ErrChanged   = errors.New("changed while it was fetched")
	errNoListing = errors.New("cannot be listed")
)

// Store is what objects can be read from.
type Store interface {
	// Open reads an object from offset on. If tag is not empty and the object is no longer the one of that tag, or if the store cannot
	// begin in the middle, the content begins at 0.
	Open(ctx context.Context, key string, offset int64, tag string) (*Content, error)
	// Folders lists the names directly below the base that have objects below them.
	Folders(ctx context.Context) ([]string, error)
	// List visits every object below a folder.
	List(ctx context.Context, folder string, visit func(Object) error) error
	Close() error
}

// Object is what a listing tells of an object.
type Object struct {
	Path string // below the folder, with slashes
	Size int64
	MD5  []byte // nil if the store does not know it
	Tag  string // another one means another content
}

// Content is an object being read.
type Content struct {
	io.ReadCloser
	Offset int64  // of its first byte
	Size   int64  // of the whole object, -1 if it is not told
	Tag    string // empty if the store has none
}

// schemes are the kinds of addresses. Packages for buckets add theirs with Register.
var schemes = map[string]func(address *url.URL) (Store, error){
	"file":  openDirectory,
	"http":  openWeb,
	"https": openWeb,
}

// optional schemes need a build with them.
var optional = map[string]string{"s3": "cloud", "gs": "cloud"}

// Register adds a scheme; only from a package's init.
func Register(scheme string, open func(address *url.URL) (Store, error)) { schemes[scheme] = open }

// Remote says whether a base path is an address and not a local path.
func Remote(base string) bool {
	scheme, _, found := strings.Cut(base, "://")
	return found && scheme != "" && !strings.ContainsAny(scheme, "/.")
}

// Open makes the source of an address: file:///DIR, http(s)://HOST/PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX. It asks nobody yet.
func Open(address string, limits Limits) (Source, error) {
	parsed, err := url.Parse(address)
	if err != nil { // its text quotes the address, which may hold a password
		return nil, fmt.Errorf("%w: the address of a model repository is no URL", ErrRefused)
	}
	open, known := schemes[parsed.Scheme]
	if !known {
		if tag := optional[parsed.Scheme]; tag != "" {
			return nil, fmt.Errorf("%w: this go_infer was built without %s:// repositories; build it with 'python -m backends.build --%s'",
				ErrRefused, parsed.Scheme, tag)
		}
		return nil, fmt.Errorf("%w: %s: unknown scheme %q; there are file, http, https, s3 and gs", ErrRefused, redacted(parsed), parsed.Scheme)
	}
	store, err := open(parsed)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", redacted(parsed), err)
	}
	s := &source{name: redacted(parsed), store: store, limits: limits}
	s.place = s.name
	if endpoint := parsed.Query().Get("endpoint"); endpoint != "" {
		s.place += "?endpoint=" + endpoint
	}
	return s, nil
}

// redacted is the address without user, password and query, where signatures and tokens are.
func redacted(address *url.URL) string {
	shown := url.URL{Scheme: address.Scheme, Host: address.Host, Path: address.Path}
	return strings.TrimSuffix(shown.String(), "/")
}

// local refuses a path that leaves its directory, or would be another one on disk.
func local(name string) error {
	if name == "" || name == "." || name != path.Clean(name) || !filepath.IsLocal(name) || strings.ContainsAny(name, "\\\x00") {
		return fmt.Errorf("%w: %q is no path below a version's directory", ErrRefused, name)
	}
	return nil
}
