package http1

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

func run(t testing.TB, handler http.HandlerFunc, settings ...func(*Server)) (*Server, string) {
	t.Helper()
	s := &Server{Handler: handler, Log: slog.New(slog.DiscardHandler), Limits: Limits{HeaderTimeout: time.Second,
		BodyTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeader: 4096, MaxFields: 100}}
	for _, set := range settings {
		set(s)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(listener) }()
	until(t, "the server listens", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.listeners) == 1
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error("shutdown:", err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error("serve:", err)
		}
	})
	return s, listener.Addr().String()
}

// until waits for a condition for at most five seconds.
func until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not in time:", what)
		}
	}
}

// echo answers with the method, the path and the body.
func echo(w http.ResponseWriter, r *http.Request) {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	_, _ = io.WriteString(w, r.Method+" "+r.URL.Path+" "+string(data))
}

func dial(t testing.TB, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	return c
}

func TestWhatIsRefusedAndWhy(t *testing.T) {
	_, address := run(t, echo)
	const host = "Host: x\r\n"
	for name, c := range map[string]struct {
		text string
		code int
	}{
		"length beside a coding":   {"POST / HTTP/1.1\r\n" + host + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
		"length twice":             {"POST / HTTP/1.1\r\n" + host + "Content-Length: 1\r\nContent-Length: 1\r\n\r\n", 400},
		"length with a sign":       {"POST / HTTP/1.1\r\n" + host + "Content-Length: +1\r\n\r\n", 400},
		"length in a list":         {"POST / HTTP/1.1\r\n" + host + "Content-Length: 1, 1\r\n\r\n", 400},
		"an unknown coding":        {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip, chunked\r\n\r\n", 501},
		"a coding in HTTP/1.0":     {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
		"bare LF":                  {"GET / HTTP/1.1\nHost: x\n\n", 400},
		"bare CR in a field":       {"GET / HTTP/1.1\r\n" + host + "A: b\rc\r\n\r\n", 400},
		"NUL in a field":           {"GET / HTTP/1.1\r\n" + host + "A: b\x00c\r\n\r\n", 400},
		"a folded line":            {"GET / HTTP/1.1\r\n" + host + "A: b\r\n c\r\n\r\n", 400},
		"space before the colon":   {"GET / HTTP/1.1\r\n" + host + "A : b\r\n\r\n", 400},
		"no host":                  {"GET / HTTP/1.1\r\n\r\n", 400},
		"two hosts":                {"GET / HTTP/1.1\r\n" + host + host + "\r\n", 400},
		"a malformed host":         {"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400},
		"HTTP/2":                   {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
		"an unknown expectation":   {"POST / HTTP/1.1\r\n" + host + "Expect: wonders\r\nContent-Length: 1\r\n\r\n", 417},
		"fields too long":          {"GET / HTTP/1.1\r\n" + host + "A: " + strings.Repeat("b", 5000) + "\r\n\r\n", 431},
		"a target too long":        {"GET /" + strings.Repeat("b", 5000) + " HTTP/1.1\r\n" + host + "\r\n", 414},
		"too many fields":          {"GET / HTTP/1.1\r\n" + host + strings.Repeat("A: b\r\n", 200) + "\r\n", 431},
		"a head that does not end": {"GET / HTTP/1.1\r\n" + host, 408},
		"a chunk that is none":     {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\nxyz\r\n", 400},
		"a chunk without its end":  {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", 400},
	} {
		t.Run(name, func(t *testing.T) {
			conn := dial(t, address)
			_, _ = io.WriteString(conn, c.text)
			reader := bufio.NewReader(conn)
			answer, err := http.ReadResponse(reader, nil)
			if err != nil {
				t.Fatal(err)
			}
			if answer.StatusCode != c.code || !answer.Close {
				t.Errorf("%d, close %v; want %d and the end", answer.StatusCode, answer.Close, c.code)
			}
			_, _ = io.Copy(io.Discard, answer.Body)
			if _, err := reader.ReadByte(); err != io.EOF { //nolint:errorlint // exactly
				t.Errorf("after the answer: %v, want EOF", err)
			}
		})
	}
}

func TestRequestsAreAnsweredInOrderOnOneConnection(t *testing.T) {
	_, address := run(t, echo)
	conn := dial(t, address)
	_, _ = io.WriteString(conn, "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"+
		"GET /b HTTP/1.1\r\nHost: x\r\n\r\n"+
		"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: u\r\n\r\n"+
		"HEAD /d HTTP/1.1\r\nHost: x\r\n\r\n"+
		"GET /e HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /f HTTP/1.0\r\n\r\n")
	reader := bufio.NewReader(conn)
	for _, want := range []string{"POST /a abc", "GET /b ", "POST /c abcde", "", "GET /e ", "GET /f "} {
		request := &http.Request{Method: "GET"}
		if want == "" {
			request.Method = "HEAD"
		}
		answer, err := http.ReadResponse(reader, request)
		if err != nil {
			t.Fatal(want, err)
		}
		got, _ := io.ReadAll(answer.Body)
		if string(got) != want || answer.ContentLength < 0 {
			t.Errorf("%q, length %d; want %q", got, answer.ContentLength, want)
		}
	}
	if _, err := reader.ReadByte(); err != io.EOF { //nolint:errorlint // exactly
		t.Errorf("after HTTP/1.0: %v, want EOF", err)
	}
}

// TestAHeadIsKnownAgainWithAnotherLength and with nothing else that is another.
func TestAHeadIsKnownAgainWithAnotherLength(t *testing.T) {
	const first = "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 12 \r\nX: 12\r\n\r\n"
	for name, c := range map[string]struct {
		next   string
		again  bool
		length int64
	}{
		"the same":                  {first, true, 12},
		"the same, and more":        {first + first, true, 12},
		"shorter":                   {strings.Replace(first, "12 ", "7 ", 1), true, 7},
		"longer":                    {strings.Replace(first, "12 ", "1234567890 ", 1), true, 1234567890},
		"nothing":                   {strings.Replace(first, "12 ", "0 ", 1), true, 0},
		"the most digits":           {strings.Replace(first, "12 ", "123456789012345678 ", 1), true, 123456789012345678},
		"too many digits":           {strings.Replace(first, "12 ", "1234567890123456789 ", 1), false, 12},
		"no digits":                 {strings.Replace(first, "12 ", " ", 1), false, 12},
		"a sign":                    {strings.Replace(first, "12 ", "+12 ", 1), false, 12},
		"a list":                    {strings.Replace(first, "12 ", "12,12 ", 1), false, 12},
		"not whole":                 {first[:len(first)-1], false, 12},
		"only the number":           {first[:strings.Index(first, "12")+2], false, 12},
		"another line":              {strings.Replace(first, "/a", "/b", 1), false, 12},
		"another field":             {strings.Replace(first, "X: 12", "X: 13", 1), false, 12},
		"another name":              {strings.Replace(first, "X: 12", "Y: 12", 1), false, 12},
		"longer than a head may be": {strings.Replace(first, "12 ", "12345678901234567 ", 1), false, 12},
	} {
		t.Run(name, func(t *testing.T) {
			longest := len(first) + len("123456789012345678") - len("12")
			if name == "longer than a head may be" {
				longest = len(first) + 14
			}
			h, p := parse([]byte(first), 10)
			if p != nil {
				t.Fatal(p)
			}
			want := 0
			if c.again {
				want = strings.Index(c.next, "\r\n\r\n") + 4
			}
			if got := h.again([]byte(c.next), longest); got != want || h.length != c.length || h.fields.Get("Content-Length") != strconv.FormatInt(c.length, 10) {
				t.Errorf("size %d, length %d, field %q; want %d and %d", got, h.length, h.fields["Content-Length"], want, c.length)
			}
			if got := h.again([]byte(first), longest); got != len(first) || h.length != 12 || h.fields.Get("Content-Length") != "12" {
				t.Errorf("then the first: size %d, length %d, field %q", got, h.length, h.fields["Content-Length"])
			}
		})
	}
}

// TestAHeadThatExpectsIsKnownAgainOnlyWhole: with a body that is empty there is nothing to expect.
func TestAHeadThatExpectsIsKnownAgainOnlyWhole(t *testing.T) {
	const first = "POST /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n"
	h, p := parse([]byte(first), 10)
	if p != nil {
		t.Fatal(p)
	}
	if got := h.again([]byte(first), 1000); got != len(first) {
		t.Errorf("the same: %d", got)
	}
	if got := h.again([]byte(strings.Replace(first, ": 0", ": 1", 1)), 1000); got != 0 {
		t.Errorf("with a body: %d", got)
	}
}

func TestLargeAndUnmeasuredBodiesArriveWhole(t *testing.T) {
	_, address := run(t, func(w http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/length" {
			w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		}
		for piece := data; len(piece) > 0; piece = piece[min(len(piece), 100_000):] {
			if _, err := w.Write(piece[:min(len(piece), 100_000)]); err != nil {
				t.Error(err)
			}
		}
	})
	data := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	for _, path := range []string{"/length", "/chunked"} {
		for _, size := range []int{0, 1, 9000, 20_000, len(data)} {
			for _, body := range []io.Reader{bytes.NewReader(data[:size]), io.MultiReader(bytes.NewReader(data[:size]))} {
				answer, err := http.Post("http://"+address+path, "", body)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(answer.Body)
				_ = answer.Body.Close()
				if err != nil || !bytes.Equal(got, data[:size]) {
					t.Errorf("%s %d: %d bytes, %v", path, size, len(got), err)
				}
			}
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestAClientThatLeavesEndsTheContextOfItsRequest(t *testing.T) {
	begun, ended := make(chan struct{}), make(chan error, 1)
	_, address := run(t, func(_ http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 4*time.Second)
		defer cancel()
		close(begun)
		<-ctx.Done()
		ended <- ctx.Err()
	})
	conn := dial(t, address)
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	<-begun
	_ = conn.Close()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want Canceled and not the timeout", err)
	}
}

func TestContinueIsSaidOnlyToAHandlerThatReads(t *testing.T) {
	_, address := run(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/read" {
			echo(w, r)
		}
	})
	for path, want := range map[string]string{"/read": "HTTP/1.1 100 Continue\r\n", "/not": "HTTP/1.1 200 OK\r\n"} {
		conn := dial(t, address)
		_, _ = io.WriteString(conn, "POST "+path+" HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")
		if line, err := bufio.NewReader(conn).ReadString('\n'); line != want {
			t.Errorf("%s: %q, %v; want %q", path, line, err, want)
		}
	}
}

// TestABodyThatNobodyReadsIsPassedOver: up to a bound the connection goes on behind it; beyond, it says that it ends.
func TestABodyThatNobodyReadsIsPassedOver(t *testing.T) {
	for _, bound := range []int{0, 3000, 700_000} {
		refuse := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }
		_, address := run(t, refuse, func(s *Server) { s.Limits.MaxUnread = int64(bound) })
		if bound == 0 {
			bound = 256 << 10
		}
		for _, size := range []int{1, bound, bound + 1} {
			for _, early := range []int{0, min(size, 2000)} { // bytes that come with the head
				c := dial(t, address)
				text := "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + strconv.Itoa(size) + "\r\n\r\n" + strings.Repeat("x", early)
				if _, err := io.WriteString(c, text); err != nil {
					t.Fatal(err)
				}
				reader := bufio.NewReader(c)
				response, err := http.ReadResponse(reader, nil)
				if err != nil || response.StatusCode != http.StatusServiceUnavailable || response.Close != (size > bound) {
					t.Fatalf("%d bytes of %d: %v, %+v", size, bound, err, response)
				}
				if size > bound {
					continue
				}
				if _, err := io.WriteString(c, strings.Repeat("x", size-early)+"GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
					t.Fatal(err)
				}
				if response, err = http.ReadResponse(reader, nil); err != nil || response.StatusCode != http.StatusServiceUnavailable {
					t.Errorf("%d bytes of %d: what came behind the body: %v", size, bound, err)
				}
			}
		}
	}
}

func TestShutdownWaitsForWhatRuns(t *testing.T) {
	begun, proceed := make(chan struct{}), make(chan struct{})
	s, address := run(t, func(w http.ResponseWriter, _ *http.Request) {
		close(begun)
		<-proceed
		_, _ = io.WriteString(w, "done")
	})
	silent, conn := dial(t, address), dial(t, address)
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	<-begun
	stopped := make(chan error, 1)
	go func() { stopped <- s.Shutdown(context.Background()) }()
	if _, err := silent.Read(make([]byte, 1)); err != io.EOF { //nolint:errorlint // exactly
		t.Errorf("an idle connection: %v, want EOF", err)
	}
	select {
	case err := <-stopped:
		t.Fatal("stopped before the answer:", err)
	default:
	}
	close(proceed)
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || !answer.Close {
		t.Errorf("%+v, %v; want an answer that closes", answer, err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestShutdownDoesNotWaitForABodyThatNobodyWants(t *testing.T) {
	for name, framing := range map[string]string{"stays away": "Content-Length: 100000", "drips": "Content-Length: 100000", "is chunked": "Transfer-Encoding: chunked"} {
		s, address := run(t, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "no")
		})
		conn := dial(t, address)
		_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\n"+framing+"\r\n\r\n5\r\n")
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || answer.StatusCode != http.StatusOK {
			t.Fatalf("%+v, %v", answer, err)
		}
		if answer.Close == (name != "is chunked") {
			t.Errorf("a body that %s: close is %v", name, answer.Close)
		}
		quiet := make(chan struct{})
		if name == "drips" {
			go func() {
				for tick := time.NewTicker(time.Millisecond); ; {
					select {
					case <-tick.C:
						_, _ = io.WriteString(conn, "x")
					case <-quiet:
						return
					}
				}
			}()
		}
		ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("a body that %s: %v", name, err)
		}
		cancel()
		close(quiet)
	}
}

func TestAPanicEndsItsConnectionAlone(t *testing.T) {
	_, address := run(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/panic" {
			panic("on purpose")
		}
		echo(w, r)
	})
	conn := dial(t, address)
	_, _ = io.WriteString(conn, "GET /panic HTTP/1.1\r\nHost: x\r\n\r\n")
	if got, err := io.ReadAll(conn); len(got) > 0 || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	answer, err := http.Get("http://" + address + "/fine")
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	http.DefaultClient.CloseIdleConnections()
}

// FuzzParse: what is accepted, net/http accepts and understands alike.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "POST http://a:1/b?c=d HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc",
		"POST /v HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n",
		"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost:\r\nA: b\r\na: c\r\n\r\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		size := headEnd(data, 0)
		if size == 0 {
			return
		}
		h, problem := parse(data[:size], 100)
		if problem != nil {
			return
		}
		theirs, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(data)))
		if err != nil {
			t.Fatalf("net/http refuses it: %v", err)
		}
		if theirs.Method != h.method || theirs.Host != h.host || theirs.RequestURI != h.target || theirs.ContentLength != h.length ||
			theirs.URL.String() != h.url.String() || theirs.ProtoMinor != h.minor || theirs.Close == h.keep {
			t.Fatalf("%+v\n%+v", h, theirs)
		}
		for _, changed := range []string{"Trailer", "Cache-Control"} { // net/http rewrites them
			delete(theirs.Header, changed)
			delete(h.fields, changed)
		}
		if len(theirs.Header) != len(h.fields) {
			t.Fatalf("%v\n%v", h.fields, theirs.Header)
		}
		for name, values := range theirs.Header {
			if strings.Join(values, "\n") != strings.Join(h.fields[name], "\n") {
				t.Fatalf("%s: %q, net/http %q", name, h.fields[name], values)
			}
		}
	})
}
