package http1

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

func (s *Server) open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

func (w *watcher) watched() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.conns)
}

// descriptors is how many this process has open.
func descriptors(t testing.TB) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc")
	}
	return len(names)
}

// nothingLeft says in the end that what the test used of the server is given back: connections, goroutines, descriptors.
func nothingLeft(t *testing.T, s *Server) (check func()) {
	t.Helper()
	goroutines, files := runtime.NumGoroutine(), descriptors(t)
	return func() {
		t.Helper()
		until(t, "every connection is forgotten", func() bool { return s.open() == 0 && s.watcher.watched() == 0 })
		until(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines })
		until(t, "no descriptor is left", func() bool { return descriptors(t) <= files })
	}
}

// reset closes so that the kernel tells the peer at once, and what is on its way is lost.
func reset(c net.Conn) {
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
}

func TestAClientMayLeaveAtAnyMoment(t *testing.T) {
	const post = "POST /%s HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
	phases := map[string]struct {
		says    string
		handler bool // it is seen by a handler, whose context ends
	}{
		"before a byte":                 {"", false},
		"in the line":                   {"POST /a", false},
		"in the fields":                 {"POST /a HTTP/1.1\r\nHost: x\r\nA", false},
		"before the body":               {fmt.Sprintf(post, "read"), true},
		"in the body":                   {fmt.Sprintf(post, "read") + "abc", true},
		"in a chunk's size":             {"POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3", true},
		"in a chunk":                    {"POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc", true},
		"while it waits for 100":        {"POST /wait HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", true},
		"while the handler works":       {"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n", true},
		"with a request behind that":    {"GET /wait HTTP/1.1\r\nHost: x\r\n\r\nGET /wait HTTP/1.1\r\nHost: x\r\n\r\n", true},
		"in the answer":                 {"GET /much HTTP/1.1\r\nHost: x\r\n\r\n", true},
		"in an answer of unknown bytes": {"GET /flow HTTP/1.1\r\nHost: x\r\n\r\n", true},
	}
	for how, leave := range map[string]func(net.Conn){"closes": func(c net.Conn) { _ = c.Close() }, "resets": reset} {
		for name, phase := range phases {
			t.Run(how+" "+name, func(t *testing.T) {
				begun, ended := make(chan struct{}, 2), make(chan error, 2)
				s, address := run(t, func(w http.ResponseWriter, r *http.Request) {
					begun <- struct{}{}
					var err error
					switch r.URL.Path {
					case "/read":
						_, err = io.ReadAll(r.Body)
					case "/wait":
						<-r.Context().Done()
						err = r.Context().Err()
					case "/much":
						w.Header().Set("Content-Length", "1000000000")
						fallthrough
					case "/flow":
						for data := make([]byte, 100_000); err == nil; {
							_, err = w.Write(data)
						}
					}
					ended <- err
				})
				check := nothingLeft(t, s)
				conn := dial(t, address)
				_, _ = io.WriteString(conn, phase.says)
				if phase.handler {
					<-begun
				} else {
					until(t, "the connection is there", func() bool { return s.open() == 1 })
				}
				leave(conn)
				if phase.handler {
					if err := <-ended; err == nil {
						t.Error("the handler did not notice")
					}
				}
				check()
			})
		}
	}
}

func TestAHandlerMayFailAtAnyMoment(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"before it reads": func(http.ResponseWriter, *http.Request) { panic("on purpose") },
		"in the body":     func(_ http.ResponseWriter, r *http.Request) { _, _ = r.Body.Read(make([]byte, 1)); panic("on purpose") },
		"behind the body": func(_ http.ResponseWriter, r *http.Request) { _, _ = io.ReadAll(r.Body); panic("on purpose") },
		"in the answer": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(make([]byte, 100_000))
			panic("on purpose")
		},
		"with http.ErrAbort":     func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"by ending its routine":  func(http.ResponseWriter, *http.Request) { runtime.Goexit() },
		"with an error for once": func(http.ResponseWriter, *http.Request) { var none *Server; none.Log.Info("nil") },
	} {
		t.Run(name, func(t *testing.T) {
			s, address := run(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/fail" {
					handler(w, r)
				}
				echo(w, r)
			})
			check := nothingLeft(t, s)
			conn := dial(t, address)
			_, _ = io.WriteString(conn, "POST /fail HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n"+strings.Repeat("x", 20))
			reader := bufio.NewReader(conn)
			if answer, err := http.ReadResponse(reader, nil); err == nil {
				if _, err = io.ReadAll(answer.Body); err == nil {
					t.Error("an answer that looks whole")
				}
			}
			_ = conn.Close()
			answer, err := http.Get("http://" + address + "/fine")
			if err != nil {
				t.Fatal("the next connection:", err)
			}
			_ = answer.Body.Close()
			http.DefaultClient.CloseIdleConnections()
			check()
		})
	}
}

func TestABodyThatNobodyReadsIsSkippedOrEndsTheConnection(t *testing.T) {
	s, address := run(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			echo(w, r)
		}
	})
	check := nothingLeft(t, s)
	for name, c := range map[string]struct {
		head  string
		body  int
		close bool
	}{
		"little":                  {"Content-Length: 5000\r\n", 5000, false},
		"as much as is skipped":   {fmt.Sprintf("Content-Length: %d\r\n", maxUnread), maxUnread, false},
		"more":                    {fmt.Sprintf("Content-Length: %d\r\n", maxUnread+1), maxUnread + 1, true},
		"chunks, of unknown sum":  {"Transfer-Encoding: chunked\r\n", 0, true},
		"one that waits for 100":  {"Expect: 100-continue\r\nContent-Length: 5\r\n", 0, true},
		"more than anybody reads": {fmt.Sprintf("Content-Length: %d\r\n", 1<<40), 3 << 20, true},
	} {
		t.Run(name, func(t *testing.T) {
			conn := dial(t, address)
			go func() {
				_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\n"+c.head+"\r\n")
				_, _ = conn.Write(make([]byte, c.body))
				if !c.close {
					_, _ = io.WriteString(conn, "GET /next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
				}
			}()
			reader := bufio.NewReader(conn)
			answer, err := http.ReadResponse(reader, nil)
			if err != nil || answer.StatusCode != http.StatusOK || answer.Close != c.close {
				t.Fatalf("%+v, %v; want 200 and close %v", answer, err, c.close)
			}
			if c.close {
				return
			}
			next, err := http.ReadResponse(reader, nil)
			if err != nil {
				t.Fatal("the next request:", err)
			}
			if text, _ := io.ReadAll(next.Body); string(text) != "GET /next " {
				t.Errorf("the next request: %q", text)
			}
		})
	}
	check()
}

// TestThousandsOfIdleConnectionsCostLittle: of each of which one large request was answered before.
func TestThousandsOfIdleConnectionsCostLittle(t *testing.T) {
	count := 5000
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < uint64(2*count+200) || testing.Short() {
		t.Skip("too few descriptors, or no time")
	}
	s, address := run(t, echo)
	check := nothingLeft(t, s)
	used := func() uint64 {
		runtime.GC()
		runtime.GC() // stacks shrink in one, and are given back in the next
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	before := used()
	conns := make([]net.Conn, count)
	request := []byte("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20000\r\n\r\n" + strings.Repeat("x", 20000))
	answer := make([]byte, 32<<10)
	for i := range conns {
		conns[i] = dial(t, address)
		_ = conns[i].SetDeadline(time.Now().Add(time.Minute))
		if _, err := conns[i].Write(request); err != nil {
			t.Fatal(err)
		}
		for got := 0; got < 20000; {
			n, err := conns[i].Read(answer)
			if got += n; err != nil {
				t.Fatal(err)
			}
		}
	}
	each := (used() - before) / uint64(count)
	t.Logf("%d bytes for each of %d connections, the client's side included", each, s.open())
	if s.open() != count || each > 20<<10 {
		t.Errorf("%d connections, %d bytes each; want %d and at most 20 KiB", s.open(), each, count)
	}
	for _, conn := range conns {
		_ = conn.Close()
	}
	check()
}

func TestOutOfDescriptorsAcceptingGoesOnLater(t *testing.T) {
	// A listener that fails as the kernel does when there are none, and then no more.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, _ := run(t, echo)
	served := make(chan error, 1)
	go func() { served <- s.Serve(&poor{Listener: listener, failures: 3}) }()
	answer, err := http.Get("http://" + listener.Addr().String() + "/")
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	_ = s.Shutdown(context.Background())
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}

type poor struct {
	net.Listener
	failures int
}

func (p *poor) Accept() (net.Conn, error) {
	if p.failures > 0 {
		p.failures--
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return p.Listener.Accept()
}

func TestShutdownLetsNoConnectionSlipThrough(t *testing.T) {
	for range 50 {
		s, address := run(t, echo)
		clients := make(chan error, 8)
		for range cap(clients) {
			go func() {
				conn, err := net.Dial("tcp", address)
				if err == nil {
					_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
					_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
					_, err = bytes.NewBuffer(nil).ReadFrom(conn)
					_ = conn.Close()
				}
				clients <- err
			}()
		}
		if err := s.Shutdown(context.Background()); err != nil {
			t.Fatal(err)
		}
		if n := s.open(); n > 0 {
			t.Fatalf("%d connections after Shutdown", n)
		}
		for range cap(clients) {
			if err := <-clients; errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal("a client was left alone")
			}
		}
	}
}
