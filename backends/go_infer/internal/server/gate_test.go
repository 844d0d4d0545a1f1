package server_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/repository"
	"sluicegate/go_infer/internal/testmodels"
)

// full is a server whose queue of one row is taken by a request of class batch, which waits for company until the test ends.
func full(t *testing.T) *running {
	t.Helper()
	s := serveWithin(t, filepath.Join(testmodels.Directory(t), "digits"),
		batch.Limits{MaxBatch: 32, MaxQueue: 1, Slots: 1, Coalesce: true, Delay: time.Hour})
	for _, limits := range []*string{&s.TFServing.Limits.Priority, &s.OIP.Limits.Priority, &s.Simple.Limits.Priority} {
		*limits = "X-Priority"
	}
	s.TFServing.Limits.TrustPriority, s.OIP.Limits.TrustPriority, s.Simple.Limits.TrustPriority = true, true, true
	s.wait(t, "batch")
	return s
}

// wait sends a request of a class that waits in the queue, alone, and is given up when the test ends.
func (s *running) wait(t *testing.T, class string) {
	t.Helper()
	before := s.received(t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	request, err := http.NewRequestWithContext(ctx, "POST", s.url+"/v1/models/digits:predict", strings.NewReader(instances(t, make([]float32, 64))))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Priority", class)
	go func() {
		defer close(ended)
		if response, err := http.DefaultClient.Do(request); err == nil {
			_ = response.Body.Close()
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
	s.until(t, func() bool { return s.received(t) > before && s.waiting(t) == 1 })
}

func (s *running) until(t *testing.T, good func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !good(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it has not come to that within 10 s")
		}
	}
}

func (s *running) lease(t *testing.T) *repository.Lease {
	t.Helper()
	lease, err := s.TFServing.Repository.Acquire(context.Background(), "digits", repository.Wanted{})
	if err != nil {
		t.Fatal(err)
	}
	return lease
}

func (s *running) waiting(t *testing.T) int {
	lease := s.lease(t)
	defer lease.Release()
	return lease.Model.Waiting()
}

func (s *running) received(t *testing.T) int64 {
	lease := s.lease(t)
	defer lease.Release()
	return lease.Model.Tally().Received
}

// raw is a connection on which a test says what it likes, when it likes.
type raw struct {
	net.Conn
	reader *bufio.Reader
}

func (s *running) raw(t *testing.T) *raw {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return &raw{c, bufio.NewReader(c)}
}

// say sends a head without its body, and answer reads the next answer.
func (c *raw) say(t *testing.T, path string, fields ...string) {
	t.Helper()
	head := "POST " + path + " HTTP/1.1\r\nHost: x\r\n"
	for _, field := range fields {
		head += field + "\r\n"
	}
	if _, err := io.WriteString(c, head+"\r\n"); err != nil {
		t.Fatal(err)
	}
}

func (c *raw) answer(t *testing.T) (*http.Response, string) {
	t.Helper()
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(body)
}

func TestAnOverloadedModelRefusesByTheHead(t *testing.T) {
	s := full(t)
	for _, path := range []string{"/v1/models/digits:predict", "/v1/models/digits/versions/2:predict", "/v1/models/digits:classify", "/v1/models/digits:regress",
		"/v2/models/digits/infer", "/predict", "/infer", "/classify", "/classify?model=digits&version=2"} {
		for _, size := range []int{10, 100_000, 1 << 20} {
			before, c := s.received(t), s.raw(t)
			class := "X-Priority: batch"
			if strings.HasPrefix(path, "/v2") {
				s.OIP.Limits.TrustPriority = false // else the body may say that it is critical
			}
			c.say(t, path, class, fmt.Sprintf("Content-Length: %d", size))
			response, body := c.answer(t)
			const want = `{"error":"The batch scheduling queue to which this task was submitted is full: 1 rows wait for model digits; retry later"}` + "\n"
			if response.StatusCode != 503 || body != want || response.Header.Get("Retry-After") == "" || response.Header.Get("Content-Type") != "application/json" {
				t.Fatalf("%s, %d bytes: %d %s %v", path, size, response.StatusCode, body, response.Header)
			}
			if got := s.received(t); got != before+1 {
				t.Errorf("%s: counted as %d requests", path, got-before)
			}
			// The body is still to come, and after it the next request.
			if _, err := c.Write(make([]byte, size)); err != nil {
				t.Fatal(err)
			}
			c.say(t, "/livez")
			if response, body := c.answer(t); response.StatusCode != 405 {
				t.Errorf("%s: what came behind the body was answered with %d %s", path, response.StatusCode, body)
			}
		}
	}
}

func TestWhatIsNotOverloadedIsReadFirst(t *testing.T) {
	s := full(t)
	for name, c := range map[string]struct {
		path   string
		fields []string
		body   string
		code   int
	}{
		"critical, and what waits is batch":  {"/v1/models/digits:predict", []string{"X-Priority: critical", "Content-Length: 2"}, "{]", 400},
		"default, and what waits is batch":   {"/v1/models/digits:predict", []string{"Content-Length: 2"}, "{]", 400},
		"a body that may say it is critical": {"/v2/models/digits/infer", []string{"X-Priority: batch", "Content-Length: 2"}, "{]", 400},
		"its length is not known":            {"/v1/models/digits:predict", []string{"X-Priority: batch", "Transfer-Encoding: chunked"}, "2\r\n{]\r\n0\r\n\r\n", 503},
		"another model":                      {"/v1/models/none:predict", []string{"X-Priority: batch", "Content-Length: 2"}, "{}", 404},
		"preprocessing has no queue":         {"/preprocess?model=digits", []string{"X-Priority: batch", "Content-Length: 2"}, "{]", 400},
	} {
		connection := s.raw(t)
		connection.say(t, c.path, c.fields...)
		_ = connection.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if _, err := connection.reader.Peek(1); err == nil {
			t.Errorf("%s: answered before the body was there", name)
		}
		_ = connection.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.WriteString(connection, c.body); err != nil {
			t.Fatal(err)
		}
		if response, body := connection.answer(t); response.StatusCode != c.code {
			t.Errorf("%s: %d %s, want %d", name, response.StatusCode, body, c.code)
		}
	}
	c := s.raw(t)
	c.say(t, "/v1/models/digits:predict", "X-Priority: batch", fmt.Sprintf("Content-Length: %d", 1<<20+1))
	if response, body := c.answer(t); response.StatusCode != 413 {
		t.Errorf("a body that is too large in any case: %d %s", response.StatusCode, body)
	}
}

// TestWhatIsRefusedByTheHeadHasFailedInTheStatistics as what is refused by the queue has.
func TestWhatIsRefusedByTheHeadHasFailedInTheStatistics(t *testing.T) {
	s := full(t)
	s.OIP.Limits.TrustPriority = false // else the body may say that it is critical
	for i, path := range []string{"/v1/models/digits:predict", "/v2/models/digits/infer", "/infer"} {
		c := s.raw(t)
		c.say(t, path, "X-Priority: batch", "Content-Length: 100000") // and not one byte of it
		if response, body := c.answer(t); response.StatusCode != 503 {
			t.Fatalf("%s: %d %s", path, response.StatusCode, body)
		}
		_, text := s.do(t, "GET", "/v2/models/digits/versions/2/stats", "")
		if want := fmt.Sprintf(`"fail":{"count":%d,`, i+1); !strings.Contains(text, want) {
			t.Errorf("%s: no %s in %s", path, want, text)
		}
	}
}

// TestAPriorityInTheBodyCounts: by the head the request could have been the most urgent.
func TestAPriorityInTheBodyCounts(t *testing.T) {
	s := full(t)
	s.wait(t, "critical") // in place of the one of class batch
	head := `{"parameters":{"priority":%d},"inputs":[{"name":"image","datatype":"FP32","shape":[1,64],"data":[%s0]}]}`
	body := func(priority int) string { return fmt.Sprintf(head, priority, strings.Repeat("0,", 63)) }
	for priority := range 4 {
		if response, text := s.do(t, "POST", "/v2/models/digits/infer", body(priority)); response.StatusCode != 503 {
			t.Errorf("priority %d behind a critical request: %d %s", priority, response.StatusCode, text)
		}
	}
	if response, text := s.do(t, "POST", "/v2/models/digits/infer", `{"parameters":{"priority":3},"inputs":[]}`); response.StatusCode != 503 {
		t.Errorf("its tensors were looked at first: %d %s", response.StatusCode, text)
	}
}
