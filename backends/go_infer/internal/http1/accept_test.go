package http1

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
)

// starved is a listener that has run out of descriptors for some tries, and is closed then.
type starved struct {
	net.Listener
	tries int
}

func (l *starved) Accept() (net.Conn, error) {
	if l.tries--; l.tries < 0 {
		return nil, net.ErrClosed
	}
	return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
}

func TestThatNoConnectionCanBeAcceptedIsToldOnce(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	l := &starved{Listener: inner, tries: 4}
	s := &Server{Handler: http.NotFoundHandler(), Log: slog.New(slog.NewTextHandler(&log, nil))}
	if err := s.Serve(l); !errors.Is(err, net.ErrClosed) || l.tries >= 0 {
		t.Fatalf("Serve ended with %v, %d tries before the end", err, l.tries)
	}
	if n := strings.Count(log.String(), "too many open files"); n != 1 {
		t.Fatalf("told %d times:\n%s", n, log.String())
	}
}
