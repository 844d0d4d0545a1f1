//go:build cloud

package bucket_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"gocloud.dev/blob"

	"sluicegate/go_infer/internal/remote"
	_ "sluicegate/go_infer/internal/remote/bucket"
)

func limits() remote.Limits {
	l := remote.Defaults()
	l.Window, l.Floor, l.Attempts, l.Backoff = 2*time.Second, 1, 3, time.Millisecond
	return l
}

// s3 is an S3 server on a socket; cut makes it end answers with the data early.
type s3 struct {
	*httptest.Server
	cut    atomic.Int64
	down   atomic.Bool
	bucket *blob.Bucket
}

func start(t *testing.T) *s3 {
	t.Helper()
	for name, value := range map[string]string{"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "very-secret",
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull} {
		t.Setenv(name, value)
	}
	s := &s3{}
	faker := gofakes3.New(s3mem.New()).Server()
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.down.Load() {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "variables.data") && s.cut.Add(-1) >= 0 {
			w = &cutter{w, 30_000}
		}
		faker.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	request, _ := http.NewRequestWithContext(context.Background(), http.MethodPut, s.URL+"/models", nil)
	if response, err := http.DefaultClient.Do(request); err != nil || response.StatusCode != 200 {
		t.Fatal(err, response)
	}
	bucket, err := blob.OpenBucket(context.Background(), s.address(""))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = bucket.Close() })
	s.bucket = bucket
	return s
}

func (s *s3) address(prefix string) string {
	return "s3://models/" + prefix + "?region=us-east-1&use_path_style=true&endpoint=" + s.URL
}

// cutter ends the connection after so many bytes.
type cutter struct {
	http.ResponseWriter
	left int
}

func (c *cutter) Write(content []byte) (int, error) {
	if c.left -= len(content); c.left < 0 {
		_, _ = c.ResponseWriter.Write(content[:len(content)+c.left])
		panic(http.ErrAbortHandler)
	}
	return c.ResponseWriter.Write(content)
}

func (s *s3) put(t *testing.T, prefix string, files map[string][]byte) {
	t.Helper()
	for name, content := range files {
		if err := s.bucket.WriteAll(context.Background(), prefix+name, content, nil); err != nil {
			t.Fatal(err)
		}
	}
}

var files = map[string][]byte{
	"saved_model.pb":                          []byte("graph"),
	"variables/variables.index":               []byte("index"),
	"variables/variables.data-00000-of-00001": bytes.Repeat([]byte("0123456789"), 10_000),
}

func same(t *testing.T, directory string) {
	t.Helper()
	for name, content := range files {
		if got, err := os.ReadFile(filepath.Join(directory, name)); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: %v, %d bytes of %d", name, err, len(got), len(content))
		}
	}
}

func TestABucketIsListedAndFetchedThoughItCuts(t *testing.T) {
	s := start(t)
	s.put(t, "digits/1/", files)
	s.put(t, "digits/12/", files)
	s.put(t, "digits/x/", files)
	s.put(t, "digits2/5/", files)
	source, err := remote.Open(s.address("digits"), limits())
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	if versions, err := source.Versions(context.Background()); err != nil || !slices.Equal(versions, []int64{1, 12}) {
		t.Fatalf("%v, %v", versions, err)
	}
	s.cut.Store(3)
	directory := filepath.Join(t.TempDir(), "12")
	if err := source.Fetch(context.Background(), 12, directory); err != nil {
		t.Fatal(err)
	}
	same(t, directory)
	if s.cut.Load() >= 0 {
		t.Error("nothing was cut")
	}
}

func TestAnIndexInABucketCounts(t *testing.T) {
	s := start(t)
	s.put(t, "digits/1/", files)
	release := remote.Release{}
	for name, content := range files {
		release.Files = append(release.Files, remote.File{Path: name, Size: int64(len(content)), SHA256: fmt.Sprintf("%x", sha256.Sum256(content))})
	}
	text, _ := json.Marshal(remote.Index{Versions: map[string]remote.Release{"1": release}})
	s.put(t, "digits/", map[string][]byte{remote.IndexFile: text})
	s.put(t, "digits/2/", files) // not yet in the index: nobody has finished it
	source, err := remote.Open(s.address("digits"), limits())
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	if versions, err := source.Versions(context.Background()); err != nil || !slices.Equal(versions, []int64{1}) {
		t.Fatalf("%v, %v", versions, err)
	}
	s.put(t, "digits/1/", map[string][]byte{"saved_model.pb": []byte("grapH")})
	if err := source.Fetch(context.Background(), 1, filepath.Join(t.TempDir(), "1")); !errors.Is(err, remote.ErrChanged) || !strings.Contains(err.Error(), "SHA-256") {
		t.Errorf("a file that is not the index's: %v", err)
	}
}

func TestAnOutageIsToldWithoutSecretsAndEnds(t *testing.T) {
	s := start(t)
	source, err := remote.Open(s.address("digits"), limits())
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	s.down.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err = source.Versions(ctx)
	if err == nil || strings.Contains(err.Error(), "very-secret") || strings.Contains(err.Error(), "AKIDEXAMPLE") || strings.Contains(source.String(), "endpoint") {
		t.Errorf("%v; %s", err, source)
	}
	s.down.Store(false)
	s.put(t, "digits/1/", files)
	if versions, err := source.Versions(context.Background()); err != nil || !slices.Equal(versions, []int64{1}) {
		t.Errorf("back again: %v, %v", versions, err)
	}
}

// gcs is as much of Google's JSON API as reading needs: objects, their media in ranges, lists.
func gcs(t *testing.T, objects map[string][]byte) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		meta := func(name string) map[string]any {
			return map[string]any{"kind": "storage#object", "bucket": "models", "name": name, "size": fmt.Sprint(len(objects[name])), "generation": "1",
				"metageneration": "1", "etag": "e" + fmt.Sprint(len(objects[name])), "updated": "2026-01-01T00:00:00Z", "timeCreated": "2026-01-01T00:00:00Z"}
		}
		w.Header().Set("Content-Type", "application/json")
		if strings.HasSuffix(r.URL.Path, "/b/models/o") {
			prefix, delimiter := r.URL.Query().Get("prefix"), r.URL.Query().Get("delimiter")
			items, prefixes := []any{}, []string{}
			for name := range objects {
				rest, below := strings.CutPrefix(name, prefix)
				if folder, _, deeper := strings.Cut(rest, "/"); below && deeper && delimiter == "/" {
					if one := prefix + folder + "/"; !slices.Contains(prefixes, one) {
						prefixes = append(prefixes, one)
					}
				} else if below {
					items = append(items, meta(name))
				}
			}
			_ = json.NewEncoder(w).Encode(map[string]any{"kind": "storage#objects", "items": items, "prefixes": prefixes})
			return
		}
		_, name, found := strings.Cut(r.URL.Path, "/b/models/o/")
		if !found {
			_, name, _ = strings.Cut(r.URL.Path, "/models/") // the XML API, which reads media
		}
		content, known := objects[name]
		switch {
		case !known:
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"error":{"code":404,"message":"No such object"}}`)
		case found && r.URL.Query().Get("alt") != "media":
			_ = json.NewEncoder(w).Encode(meta(name))
		default:
			w.Header().Set("Content-Type", "application/octet-stream")
			w.Header().Set("X-Goog-Generation", "1")
			http.ServeContent(w, r, "", time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), bytes.NewReader(content))
		}
	}))
	t.Cleanup(server.Close)
	t.Setenv("STORAGE_EMULATOR_HOST", server.Listener.Addr().String())
}

func TestGoogleCloudStorage(t *testing.T) {
	objects := map[string][]byte{}
	for name, content := range files {
		objects["digits/1/"+name] = content
	}
	gcs(t, objects)
	source, err := remote.Open("gs://models/digits?access_id=-", limits())
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	if versions, err := source.Versions(context.Background()); err != nil || !slices.Equal(versions, []int64{1}) {
		t.Fatalf("%v, %v", versions, err)
	}
	directory := filepath.Join(t.TempDir(), "1")
	if err := source.Fetch(context.Background(), 1, directory); err != nil {
		t.Fatal(err)
	}
	same(t, directory)
}
