package http1

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// bound is run with limits of its own.
func bound(t *testing.T, limits Limits, handler http.HandlerFunc) string {
	t.Helper()
	s := &Server{Handler: handler, Log: slog.New(slog.DiscardHandler), Limits: limits}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve(listener) }()
	t.Cleanup(func() { _ = s.Shutdown(t.Context()) })
	return listener.Addr().String()
}

func TestBoundsOfAHeadHoldOnBothSides(t *testing.T) {
	const begin = "GET / HTTP/1.1\r\nHost: x\r\n"
	filled := func(size int) string { // a head of so many bytes
		return begin + "A: " + strings.Repeat("b", size-len(begin)-len("A: \r\n\r\n")) + "\r\n\r\n"
	}
	target := func(size int) string {
		const rest = "GET / HTTP/1.1\r\n"
		return "GET /" + strings.Repeat("b", size-len(rest)) + " HTTP/1.1\r\n"
	}
	limits := Defaults()
	limits.MaxHeader, limits.MaxFields = 1024, 10
	address := bound(t, limits, echo)
	for name, c := range map[string]struct {
		head string
		code int
		says string
	}{
		"as many bytes as allowed":  {filled(1024), 200, "GET / "},
		"one more":                  {filled(1025), 431, "431 Request Header Fields Too Large: line and fields have more than 1024 bytes\n"},
		"no end after many more":    {filled(50_000)[:40_000], 431, "line and fields have more than 1024 bytes"},
		"a line that fits":          {target(1000) + "Host: x\r\n\r\n", 200, "GET /bbb"},
		"a line that is too long":   {target(1025) + "Host: x\r\n\r\n", 414, "414 Request URI Too Long: the line has more than 1024 bytes\n"},
		"a line that does not end":  {"GET /" + strings.Repeat("b", 1100), 414, "the line has more than 1024 bytes"},
		"as many fields as allowed": {begin + strings.Repeat("A: b\r\n", 9) + "\r\n", 200, "GET / "},
		"one field more":            {begin + strings.Repeat("A: b\r\n", 10) + "\r\n", 431, "more than 10 fields"},
	} {
		for size, piece := range map[string]int{" at once": len(c.head), " in pieces": 100} {
			t.Run(name+size, func(t *testing.T) {
				conn := dial(t, address)
				for rest := c.head; rest != ""; rest = rest[min(len(rest), piece):] {
					if _, err := io.WriteString(conn, rest[:min(len(rest), piece)]); err != nil {
						break // refused before its end
					}
				}
				answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					t.Fatal(err)
				}
				text, _ := io.ReadAll(answer.Body)
				if answer.StatusCode != c.code || !strings.Contains(string(text), c.says) {
					t.Errorf("%d %q; want %d %q", answer.StatusCode, text, c.code, c.says)
				}
			})
		}
	}
}

// TestAClientThatDripsIsGivenUp: every byte is in time, the whole is not.
func TestAClientThatDripsIsGivenUp(t *testing.T) {
	failed := make(chan error, 1)
	limits := Defaults()
	limits.HeaderTimeout, limits.BodyTimeout, limits.IdleTimeout = 200*time.Millisecond, 400*time.Millisecond, 300*time.Millisecond
	address := bound(t, limits, func(w http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		failed <- err
		w.WriteHeader(http.StatusRequestTimeout)
	})
	drip := func(conn net.Conn, piece string) {
		for range 1000 {
			if _, err := io.WriteString(conn, piece); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	for name, c := range map[string]struct {
		begin, piece string
		low, high    time.Duration // until the answer
		answer       string
	}{
		"its line":   {"GET /", "a", 150 * time.Millisecond, 2 * time.Second, "HTTP/1.1 408 Request Timeout\r\n"},
		"its fields": {"GET / HTTP/1.1\r\n", "A: b\r\n", 150 * time.Millisecond, 2 * time.Second, "HTTP/1.1 408 Request Timeout\r\n"},
		"its body": {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n", "a", 300 * time.Millisecond, 2 * time.Second,
			"HTTP/1.1 408 Request Timeout\r\n"},
		"its chunks": {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\na\r\n", 300 * time.Millisecond, 2 * time.Second,
			"HTTP/1.1 408 Request Timeout\r\n"},
		"nothing": {"", "", 200 * time.Millisecond, 2 * time.Second, ""},
	} {
		t.Run(name, func(t *testing.T) {
			conn := dial(t, address)
			begun := time.Now()
			_, _ = io.WriteString(conn, c.begin)
			if c.piece != "" {
				go drip(conn, c.piece)
			}
			line, err := bufio.NewReader(conn).ReadString('\n')
			took := time.Since(begun)
			if line != c.answer || took < c.low || took > c.high {
				t.Errorf("%q, %v after %v; want %q after %v to %v", line, err, took, c.answer, c.low, c.high)
			}
			if strings.HasPrefix(c.begin, "POST") {
				var timeout net.Error
				if err := <-failed; !errors.As(err, &timeout) || !timeout.Timeout() {
					t.Errorf("the handler read %v, want a timeout", err)
				}
			}
		})
	}
}

func TestAClientThatDoesNotReadIsGivenUp(t *testing.T) {
	failed := make(chan error, 1)
	limits := Defaults()
	limits.WriteTimeout = 200 * time.Millisecond
	address := bound(t, limits, func(w http.ResponseWriter, _ *http.Request) {
		var err error
		for data := make([]byte, 1<<20); err == nil; {
			_, err = w.Write(data)
		}
		failed <- err
	})
	conn := dial(t, address)
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	select {
	case err := <-failed:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("the handler still writes")
	}
}

// TestDeadlinesOfOneRequestDoNotEndTheNext: they are moved with slack, and never so that a request has less time than that.
func TestDeadlinesOfOneRequestDoNotEndTheNext(t *testing.T) {
	limits := Defaults()
	limits.HeaderTimeout, limits.BodyTimeout, limits.WriteTimeout, limits.IdleTimeout =
		400*time.Millisecond, 400*time.Millisecond, 400*time.Millisecond, 400*time.Millisecond
	address := bound(t, limits, echo)
	conn := dial(t, address)
	reader := bufio.NewReader(conn)
	for i := range 8 {
		time.Sleep(200 * time.Millisecond) // idle
		_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n")
		time.Sleep(50 * time.Millisecond) // in the head
		_, _ = io.WriteString(conn, "\r\n")
		time.Sleep(50 * time.Millisecond) // before the body
		_, _ = io.WriteString(conn, "x")
		answer, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatal("request", i, err)
		}
		if text, _ := io.ReadAll(answer.Body); string(text) != "POST / x" {
			t.Fatalf("request %d: %d %q", i, answer.StatusCode, text)
		}
	}
}
