package remote

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// quick are limits for tests: nothing waits long.
func quick() Limits {
	return Limits{Total: 20 * time.Second, Window: 150 * time.Millisecond, Floor: 1, Attempts: 3, Backoff: time.Millisecond, Parallel: 3,
		Bytes: 1 << 20, Files: 50}
}

// release is a version's files, large enough to be cut.
func release() map[string][]byte {
	random := rand.New(rand.NewPCG(1, 2))
	large := make([]byte, 300_000)
	for i := range large {
		large[i] = byte(random.Uint32())
	}
	return map[string][]byte{
		"saved_model.pb":                          []byte("graph"),
		"variables/variables.index":               []byte("index"),
		"variables/variables.data-00000-of-00001": large,
		"assets/empty":                            {},
	}
}

func sum(content []byte) string { return fmt.Sprintf("%x", sha256.Sum256(content)) }

func indexed(files map[string][]byte) Release {
	r := Release{}
	for path, content := range files {
		r.Files = append(r.Files, File{path, int64(len(content)), sum(content)})
	}
	return r
}

// site is a web server with files, which tests teach to misbehave.
type site struct {
	*httptest.Server
	mu       sync.Mutex
	files    map[string][]byte
	requests atomic.Int64
	ranges   atomic.Int64
	bad      func(w http.ResponseWriter, r *http.Request, content []byte) bool // true: it has answered
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{files: map[string][]byte{}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		if r.Header.Get("Range") != "" {
			s.ranges.Add(1)
		}
		s.mu.Lock()
		content, known := s.files[strings.TrimPrefix(r.URL.Path, "/models/")]
		s.mu.Unlock()
		if !known {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("ETag", `"`+sum(content)[:16]+`"`)
		if s.bad != nil && s.bad(w, r, content) {
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}))
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s
}

func (s *site) put(name string, content []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[name] = content
}

func (s *site) index(t *testing.T, versions map[string]Release) {
	t.Helper()
	text, err := json.Marshal(Index{versions})
	if err != nil {
		t.Fatal(err)
	}
	s.put(IndexFile, text)
}

// publish puts release() there as version 3.
func (s *site) publish(t *testing.T) map[string][]byte {
	t.Helper()
	files := release()
	for name, content := range files {
		s.put("3/"+name, content)
	}
	s.index(t, map[string]Release{"3": indexed(files)})
	return files
}

func open(t *testing.T, address string, limits Limits) Source {
	t.Helper()
	source, err := Open(address, limits)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = source.Close() })
	return source
}

func same(t *testing.T, directory string, files map[string][]byte) {
	t.Helper()
	found := 0
	_ = filepath.WalkDir(directory, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			t.Error(err)
			return nil
		}
		if entry.IsDir() {
			return nil
		}
		found++
		name, _ := filepath.Rel(directory, path)
		if content, _ := os.ReadFile(path); !bytes.Equal(content, files[filepath.ToSlash(name)]) {
			t.Errorf("%s is not what was published", name)
		}
		return nil
	})
	if found != len(files) {
		t.Errorf("%d files, want %d", found, len(files))
	}
	if entries, _ := os.ReadDir(filepath.Dir(directory)); len(entries) != 1 {
		t.Errorf("beside the version there are %v", entries)
	}
}

// nothing: a version that failed is not there.
func nothing(t *testing.T, directory string) {
	t.Helper()
	if _, err := os.Lstat(directory); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something is published: %v", err)
	}
}

func TestAWebServerIsListedAndFetched(t *testing.T) {
	s := newSite(t)
	files := s.publish(t)
	s.index(t, map[string]Release{"3": indexed(files), "0010": indexed(files), "2": indexed(files)})
	source := open(t, s.URL+"/models", quick())
	versions, err := source.Versions(context.Background())
	if err != nil || !slices.Equal(versions, []int64{2, 3, 10}) {
		t.Fatalf("%v, %v", versions, err)
	}
	directory := filepath.Join(t.TempDir(), "3")
	if err := source.Fetch(context.Background(), 3, directory); err != nil {
		t.Fatal(err)
	}
	same(t, directory, files)
	if err := source.Fetch(context.Background(), 3, directory); !errors.Is(err, fs.ErrExist) {
		t.Errorf("into what exists: %v", err)
	}
	if err := source.Fetch(context.Background(), 4, directory+"x"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a version that does not exist: %v", err)
	}
}

func TestACutConnectionIsResumedWhereItWasCut(t *testing.T) {
	s := newSite(t)
	files := s.publish(t)
	sent := atomic.Int64{}
	s.bad = func(w http.ResponseWriter, r *http.Request, content []byte) bool {
		if len(content) < 1000 || !strings.Contains(r.URL.Path, "variables.data") {
			return false
		}
		begin := 0
		if text := r.Header.Get("Range"); text != "" {
			begin, _ = strconv.Atoi(strings.Trim(text, "bytes=-"))
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", begin, len(content)-1, len(content)))
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(content)-begin))
		if begin > 0 {
			w.WriteHeader(http.StatusPartialContent)
		}
		n, _ := w.Write(content[begin:min(begin+40_000, len(content))]) // then net/http cuts: less than it promised
		sent.Add(int64(n))
		return true
	}
	directory := filepath.Join(t.TempDir(), "3")
	if err := open(t, s.URL+"/models", quick()).Fetch(context.Background(), 3, directory); err != nil {
		t.Fatal(err)
	}
	same(t, directory, files)
	if s.ranges.Load() < 7 || sent.Load() > 300_000 {
		t.Errorf("%d ranges and %d bytes; 300,000 bytes in pieces of 40,000 need 7 and no byte twice", s.ranges.Load(), sent.Load())
	}
}

func TestWhatAnInterruptedFetchLeftIsUsedByTheNext(t *testing.T) {
	s := newSite(t)
	files := s.publish(t)
	var broken atomic.Bool
	broken.Store(true)
	s.bad = func(w http.ResponseWriter, r *http.Request, content []byte) bool {
		if !broken.Load() || len(content) < 1000 || strings.HasSuffix(r.URL.Path, IndexFile) {
			return false
		}
		if r.Header.Get("Range") != "" {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		_, _ = w.Write(content[:100_000])
		return true
	}
	source := open(t, s.URL+"/models", quick())
	directory := filepath.Join(t.TempDir(), "3")
	if err := source.Fetch(context.Background(), 3, directory); err == nil || !strings.Contains(err.Error(), "given up after 3 attempts") {
		t.Fatal(err)
	}
	nothing(t, directory)
	broken.Store(false)
	before := s.ranges.Load()
	if err := source.Fetch(context.Background(), 3, directory); err != nil {
		t.Fatal(err)
	}
	same(t, directory, files)
	if s.ranges.Load() != before+1 {
		t.Errorf("%d ranges; what was there should have been gone on with", s.ranges.Load()-before)
	}
}

func TestServersThatMisbehave(t *testing.T) {
	type answer = func(w http.ResponseWriter, r *http.Request, content []byte) bool
	data := func(bad answer) answer { // misbehaves about the data only
		return func(w http.ResponseWriter, r *http.Request, content []byte) bool {
			return strings.Contains(r.URL.Path, "variables.data") && bad(w, r, content)
		}
	}
	code := func(code int) answer {
		return func(w http.ResponseWriter, _ *http.Request, _ []byte) bool { w.WriteHeader(code); return true }
	}
	hang := func(w http.ResponseWriter, r *http.Request, _ []byte) bool { <-r.Context().Done(); return true }
	for _, c := range []struct {
		name     string
		bad      answer
		is       error
		says     string
		requests int64 // at most; 0: any
	}{
		{"hangs before the index", hang, ErrStalled, "stalled: fewer than 1 bytes in 150ms (given up after 3 attempts)", 3},
		{"hangs before the data", data(hang), ErrStalled, "variables.data", 0},
		{"hangs in the middle", data(func(w http.ResponseWriter, r *http.Request, content []byte) bool {
			w.Header().Set("Content-Length", strconv.Itoa(len(content)))
			_, _ = w.Write(content[:1000])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return true
		}), nil, "", 0},
		{"sends nothing, and says all is there", data(func(w http.ResponseWriter, _ *http.Request, content []byte) bool {
			w.Header().Set("Content-Length", "0")
			return true
		}), ErrChanged, "it has 0 bytes; 300000 were announced", 0},
		{"sends more than was announced", data(func(w http.ResponseWriter, _ *http.Request, content []byte) bool {
			w.(http.Flusher).Flush() // so that no length is told
			_, _ = w.Write(append(bytes.Clone(content), "more"...))
			return true
		}), ErrChanged, "it has more than the 300000 bytes that were announced", 0},
		{"sends other bytes", data(func(w http.ResponseWriter, _ *http.Request, content []byte) bool {
			other := bytes.Clone(content)
			other[7]++
			_, _ = w.Write(other)
			return true
		}), ErrChanged, "its SHA-256 is", 0},
		{"is another page", data(func(w http.ResponseWriter, _ *http.Request, _ []byte) bool {
			_, _ = io.WriteString(w, "<html>please log in</html>")
			return true
		}), ErrChanged, "it has 26 bytes; 300000 were announced", 0},
		{"encodes", data(func(w http.ResponseWriter, r *http.Request, content []byte) bool {
			w.Header().Set("Content-Encoding", "br")
			_, _ = w.Write(content)
			return true
		}), ErrRefused, `encoded as "br", though asked not to`, 0},
		{"has lost it", data(code(404)), ErrNotFound, "404 Not Found", 0},
		{"forbids", code(403), ErrRefused, "index.json: refused: the server says 403 Forbidden", 1},
		{"fails", code(500), nil, "the server says 500 Internal Server Error (given up after 3 attempts)", 3},
		{"redirects for ever", func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
			return true
		}, ErrRefused, "more than 5 redirects", 7},
		{"gives another range", data(func(w http.ResponseWriter, r *http.Request, content []byte) bool {
			if r.Header.Get("Range") == "" {
				w.Header().Set("Content-Length", strconv.Itoa(len(content)))
				_, _ = w.Write(content[:1000])
				return true
			}
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 5-%d/%d", len(content)-1, len(content)))
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(content[5:])
			return true
		}), ErrRefused, "bytes from 1000 on, the server gave those from 5 on", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			s.publish(t)
			s.bad = c.bad
			limits := quick()
			directory := filepath.Join(t.TempDir(), "3")
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			if c.name == "hangs in the middle" {
				limits.Total, c.is, c.says = 500*time.Millisecond, nil, "was not there after 500ms"
			}
			err := open(t, s.URL+"/models", limits).Fetch(ctx, 3, directory)
			if err == nil || !strings.Contains(err.Error(), c.says) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("got %v\nwant %s", err, c.says)
			}
			if n := s.requests.Load(); c.requests > 0 && n > c.requests {
				t.Errorf("%d requests, want at most %d", n, c.requests)
			}
			nothing(t, directory)
		})
	}
}

func TestAFileThatChangesBetweenTwoRangesIsBegunAgain(t *testing.T) {
	for _, tagged := range []bool{true, false} {
		s := newSite(t)
		files := s.publish(t)
		data := files["variables/variables.data-00000-of-00001"]
		old := bytes.Clone(data)
		slices.Reverse(old)
		first := atomic.Bool{}
		s.bad = func(w http.ResponseWriter, r *http.Request, content []byte) bool {
			if !strings.Contains(r.URL.Path, "variables.data") {
				return false
			}
			if first.CompareAndSwap(false, true) { // the first half is of another file
				w.Header().Set("ETag", `"old"`)
				if !tagged {
					w.Header().Del("ETag")
				}
				w.Header().Set("Content-Length", strconv.Itoa(len(content)))
				_, _ = w.Write(old[:150_000])
				return true
			}
			if !tagged {
				w.Header().Del("ETag")
			}
			return false
		}
		directory := filepath.Join(t.TempDir(), "3")
		if err := open(t, s.URL+"/models", quick()).Fetch(context.Background(), 3, directory); err != nil {
			t.Fatalf("tagged %v: %v", tagged, err)
		}
		same(t, directory, files)
	}
}

func TestACancelledFetchEndsAtOnce(t *testing.T) {
	s := newSite(t)
	s.publish(t)
	limits := quick()
	limits.Window = time.Minute
	arrived := make(chan struct{}, 10)
	s.bad = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if strings.HasSuffix(r.URL.Path, IndexFile) {
			return false
		}
		arrived <- struct{}{}
		<-r.Context().Done()
		return true
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-arrived; cancel() }()
	directory := filepath.Join(t.TempDir(), "3")
	if err := open(t, s.URL+"/models", limits).Fetch(ctx, 3, directory); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	nothing(t, directory)
}

func TestWrongIndexesAreRefused(t *testing.T) {
	good := sum([]byte("x"))
	files := func(path string) string {
		return `{"versions":{"3":{"files":[{"path":"` + path + `","size":1,"sha256":"` + good + `"}]}}}`
	}
	for index, says := range map[string]string{
		"":                       "unexpected end of JSON input",
		"[]":                     "cannot unmarshal array",
		`{"versions":{"x":{}}}`:  "versions.x is no version",
		`{"versions":{"-3":{}}}`: "versions.-3 is no version",
		`{"versions":{"3":{}}}`:  "versions.3: it must have either archive or files",
		files("../x"):            `"../x" is no path below`,
		files("/etc/passwd"):     `"/etc/passwd" is no path below`,
		files("a/../b"):          `"a/../b" is no path below`,
		files("a//b"):            `"a//b" is no path below`,
		files("a\\\\b"):          "is no path below",
		files("."):               `"." is no path below`,
		strings.Replace(files("a"), good, "abc", 1):                                                     `sha256 of "a" is "abc"; it must be 64`,
		strings.Replace(files("a"), `"size":1`, `"size":-1`, 1):                                         `size of "a" is -1`,
		strings.Replace(files("a"), `"size":1`, `"size":9999999999`, 1):                                 "larger than the 1048576 bytes",
		`{"versions":{"3":{"archive":"m.rar","size":1,"sha256":"` + good + `"}}}`:                       `archive "m.rar" is none of .tar, .tar.gz, .tgz, .zip`,
		`{"versions":{"3":{"archive":"../m.zip","size":1,"sha256":"` + good + `"}}}`:                    `"../m.zip" is no path below`,
		`{"versions":{"3":{"archive":"m.zip","size":0,"sha256":"` + good + `"}}}`:                       `size of "m.zip" is 0`,
		`{"versions":{"3":{"files":[` + strings.Repeat(`{"path":"a","size":0,"sha256":"`+good+`"},`, 2): "unexpected end of JSON input",
	} {
		s := newSite(t)
		s.put(IndexFile, []byte(index))
		directory := filepath.Join(t.TempDir(), "3")
		err := open(t, s.URL+"/models", quick()).Fetch(context.Background(), 3, directory)
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s:\ngot %v\nwant %s", index, err, says)
		}
		nothing(t, directory)
	}
	many := Release{}
	for i := range 51 {
		many.Files = append(many.Files, File{fmt.Sprint(i), 1, good})
	}
	s := newSite(t)
	s.index(t, map[string]Release{"3": many})
	if err := open(t, s.URL+"/models", quick()).Fetch(context.Background(), 3, filepath.Join(t.TempDir(), "3")); err == nil ||
		!strings.Contains(err.Error(), "it has 51 files; at most 50 are accepted") {
		t.Error(err)
	}
}

func TestASiteWithoutAnIndexSaysWhatIsMissing(t *testing.T) {
	_, err := open(t, newSite(t).URL+"/models", quick()).Versions(context.Background())
	if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "has no index.json, which a web server must have") {
		t.Error(err)
	}
}

// entry is one entry of an archive.
type entry struct {
	name string
	kind byte // of tar
	text string
}

func archiveOf(t *testing.T, suffix string, entries []entry) []byte {
	t.Helper()
	var buffer bytes.Buffer
	if suffix == ".zip" {
		w := zip.NewWriter(&buffer)
		for _, e := range entries {
			header := &zip.FileHeader{Name: e.name, Method: zip.Deflate}
			if e.kind == tar.TypeSymlink {
				header.SetMode(fs.ModeSymlink | 0o777)
			}
			part, err := w.CreateHeader(header)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(part, e.text)
		}
		_ = w.Close()
		return buffer.Bytes()
	}
	var zipped *gzip.Writer
	var to io.Writer = &buffer
	if suffix != ".tar" {
		zipped = gzip.NewWriter(&buffer)
		to = zipped
	}
	w := tar.NewWriter(to)
	for _, e := range entries {
		header := &tar.Header{Name: e.name, Typeflag: e.kind, Mode: 0o644, Size: int64(len(e.text))}
		if e.kind != tar.TypeReg {
			header.Size, header.Linkname = 0, e.text
		}
		if err := w.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if e.kind == tar.TypeReg {
			_, _ = io.WriteString(w, e.text)
		}
	}
	_ = w.Close()
	if zipped != nil {
		_ = zipped.Close()
	}
	return buffer.Bytes()
}

func (s *site) archive(t *testing.T, name string, content []byte) {
	t.Helper()
	s.put(name, content)
	s.index(t, map[string]Release{"3": {Archive: name, Size: int64(len(content)), SHA256: sum(content)}})
}

func TestArchivesAreUnpacked(t *testing.T) {
	files := release()
	for _, suffix := range archives() {
		for _, prefix := range []string{"", "./", "exported/"} {
			var entries []entry
			if prefix == "exported/" {
				entries = append(entries, entry{"exported/", tar.TypeDir, ""})
			}
			for name, content := range files {
				entries = append(entries, entry{prefix + name, tar.TypeReg, string(content)})
			}
			s := newSite(t)
			s.archive(t, "some/m"+suffix, archiveOf(t, suffix, entries))
			directory := filepath.Join(t.TempDir(), "3")
			if err := open(t, s.URL+"/models/", quick()).Fetch(context.Background(), 3, directory); err != nil {
				t.Fatalf("%s %s: %v", suffix, prefix, err)
			}
			same(t, directory, files)
		}
	}
}

func TestHostileArchivesAreRefused(t *testing.T) {
	file := func(name string) entry { return entry{name, tar.TypeReg, "x"} }
	many := make([]entry, 101)
	for i := range many {
		many[i] = file(fmt.Sprint(i))
	}
	for _, c := range []struct {
		name    string
		suffix  string
		entries []entry
		says    string
	}{
		{"leaves upwards", ".tar.gz", []entry{file("../x")}, `"../x" is no path below`},
		{"leaves in the middle", ".zip", []entry{file("a/../../x")}, "is no path below"},
		{"absolute", ".tar", []entry{file("/tmp/x")}, `"/tmp/x" is no path below`},
		{"absolute in a zip", ".zip", []entry{file("/tmp/x")}, `"/tmp/x" is no path below`},
		{"backslashes", ".zip", []entry{file(`..\x`)}, "is no path below"},
		{"symbolic link", ".tgz", []entry{{"a", tar.TypeSymlink, "/etc"}, file("a/x")}, `"a" is a link or no file`},
		{"symbolic link in a zip", ".zip", []entry{{"a", tar.TypeSymlink, "/etc"}}, `"a" is a link or no file`},
		{"hard link", ".tar", []entry{file("b"), {"a", tar.TypeLink, "b"}}, `"a" is a link or no file`},
		{"device", ".tar", []entry{{"a", tar.TypeChar, ""}}, `"a" is a link or no file`},
		{"pipe", ".tar", []entry{{"a", tar.TypeFifo, ""}}, `"a" is a link or no file`},
		{"twice", ".tar", []entry{file("a"), file("a")}, `"a" is there twice`},
		{"a file as a directory", ".tar", []entry{file("a"), file("a/b")}, "cannot be unpacked"},
		{"bomb", ".tar.gz", []entry{{"a", tar.TypeReg, strings.Repeat("\x00", 1<<20+1)}}, "unpacks to more than the 1048576 bytes"},
		{"bomb in a zip", ".zip", []entry{{"a", tar.TypeReg, strings.Repeat("\x00", 1<<19)}, {"b", tar.TypeReg, strings.Repeat("\x00", 1<<20)}},
			"unpacks to more than the 1048576 bytes"},
		{"too many", ".tar", many, "more than 100 entries"},
		{"nothing", ".tar", nil, "the archive is empty"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			s.archive(t, "m"+c.suffix, archiveOf(t, c.suffix, c.entries))
			directory := filepath.Join(t.TempDir(), "3")
			err := open(t, s.URL+"/models", quick()).Fetch(context.Background(), 3, directory)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v\nwant %s", err, c.says)
			}
			nothing(t, directory)
		})
	}
	s := newSite(t)
	whole := archiveOf(t, ".tar.gz", []entry{{"a", tar.TypeReg, string(release()["variables/variables.data-00000-of-00001"])}})
	s.archive(t, "m.tar.gz", whole[:len(whole)/2])
	if err := open(t, s.URL+"/models", quick()).Fetch(context.Background(), 3, filepath.Join(t.TempDir(), "3")); err == nil ||
		!strings.Contains(err.Error(), "cannot be unpacked: unexpected EOF") {
		t.Error(err)
	}
}

func lay(t *testing.T, base string, files map[string][]byte) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(base, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestADirectoryIsListedAndFetched(t *testing.T) {
	base, files := t.TempDir(), release()
	lay(t, filepath.Join(base, "0007"), files)
	lay(t, filepath.Join(base, "8"), files)
	lay(t, filepath.Join(base, "other"), files)
	lay(t, base, map[string][]byte{"9": []byte("a file")})
	source := open(t, "file://"+base, quick())
	if versions, err := source.Versions(context.Background()); err != nil || !slices.Equal(versions, []int64{7, 8}) {
		t.Errorf("%v, %v", versions, err)
	}
	directory := filepath.Join(t.TempDir(), "7")
	if err := source.Fetch(context.Background(), 7, directory); err != nil {
		t.Fatal(err)
	}
	same(t, directory, files)
	if err := os.Symlink("/etc/passwd", filepath.Join(base, "8", "link")); err != nil {
		t.Fatal(err)
	}
	if err := source.Fetch(context.Background(), 8, filepath.Join(t.TempDir(), "8")); !errors.Is(err, ErrRefused) {
		t.Errorf("with a link: %v", err)
	}
	if _, err := open(t, "file://"+base+"/none", quick()).Versions(context.Background()); !errors.Is(err, ErrNotFound) {
		t.Errorf("no such directory: %v", err)
	}
}

// growing is a directory whose last file grows while it is read.
type growing struct {
	Store
	grow func()
}

func (g growing) Open(ctx context.Context, key string, offset int64, tag string) (*Content, error) {
	if strings.HasPrefix(key, "7/") {
		g.grow()
	}
	return g.Store.Open(ctx, key, offset, tag)
}

func TestAVersionThatIsStillBeingCopiedIsNotPublished(t *testing.T) {
	base := t.TempDir()
	lay(t, filepath.Join(base, "7"), map[string][]byte{"saved_model.pb": []byte("graph")})
	found := open(t, "file://"+base, quick()).(*source)
	once := sync.Once{}
	found.store = growing{found.store, func() {
		once.Do(func() {
			lay(t, filepath.Join(base, "7"), map[string][]byte{"variables/variables.index": []byte("index")})
		})
	}}
	directory := filepath.Join(t.TempDir(), "7")
	if err := found.Fetch(context.Background(), 7, directory); !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), "somebody is still writing there") {
		t.Error(err)
	}
	nothing(t, directory)
	if err := found.Fetch(context.Background(), 7, directory); err != nil { // and then it is complete
		t.Error(err)
	}
}

func TestAddresses(t *testing.T) {
	for address, says := range map[string]string{
		"ftp://user:secret@host/x?token=secret": `ftp://host/x: unknown scheme "ftp"`,
		"file://host/x":                         "file:// has no host",
		"http:///x":                             "the address has no host",
		"://secret":                             "is no URL",
	} {
		if _, err := Open(address, quick()); err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got %v, want %s", address, err, says)
		}
	}
	for base, remote := range map[string]bool{"/models": false, "models": false, "a/b://c": false, "s3://b": true, "file:///x": true, "http://h": true} {
		if Remote(base) != remote {
			t.Errorf("Remote(%q) is %v", base, !remote)
		}
	}
}

func TestSecretsGoToTheirServerOnlyAndAreNeverTold(t *testing.T) {
	t.Setenv(TokenVariable, "secret-token")
	elsewhere := newSite(t)
	leaked := atomic.Bool{}
	elsewhere.bad = func(_ http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.Header.Get("Authorization") != "" {
			leaked.Store(true)
		}
		return false
	}
	elsewhere.put(IndexFile, []byte("{}"))
	s := newSite(t)
	s.put(IndexFile, []byte("{}"))
	authorized := atomic.Bool{}
	s.bad = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.Header.Get("Authorization") == "Bearer secret-token" && r.URL.Query().Get("key") == "secret" {
			authorized.Store(true)
		}
		http.Redirect(w, r, strings.Replace(elsewhere.URL, "127.0.0.1", "localhost", 1)+"/models/index.json", http.StatusFound)
		return true
	}
	source := open(t, strings.Replace(s.URL, "http://", "http://user:secret@", 1)+"/models?key=secret", quick())
	if _, err := source.Versions(context.Background()); err != nil {
		t.Fatal(err)
	}
	if !authorized.Load() || leaked.Load() {
		t.Errorf("authorized %v, leaked %v", authorized.Load(), leaked.Load())
	}
	s.Close()
	elsewhere.Close()
	_, err := source.Versions(context.Background())
	if err == nil || strings.Contains(err.Error(), "secret") || strings.Contains(source.String(), "secret") {
		t.Errorf("%v, %s", err, source)
	}
}
