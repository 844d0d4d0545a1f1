package link

import (
	"context"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"sluicegate/go_infer/internal/panics"
)

// breaking is a connection whose writes panic once it is told to.
type breaking struct {
	net.Conn
	now chan struct{}
}

func (b breaking) Write(data []byte) (int, error) {
	select {
	case <-b.now:
		panic("on purpose")
	default:
		return b.Conn.Write(data)
	}
}

// quiet is a server whose links are made by hand.
func quiet(load func() Load) *Server {
	return New(soon(echo), slog.New(slog.DiscardHandler), load)
}

func idle() Load { return Load{} }

func TestAPanicInASectionOfTheMutexLeavesItFree(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	for name, part := range map[string]func(c *conn) error{
		"a request without a head": func(c *conn) error { return c.open(&frame{kind: typeRequest, stream: 1}, time.Now()) },
		"a ping without a payload": func(c *conn) error { return c.take(&frame{kind: typePing}, time.Now()) },
	} {
		t.Run(name, func(t *testing.T) {
			c := newConn(quiet(idle), ours)
			before := panics.Count()
			if err := panics.Guard(c.server.Log, "a test", func() error { return part(c) }); err == nil || panics.Count() != before+1 {
				t.Fatalf("it did not panic: %v", err)
			}
			if !c.mu.TryLock() {
				t.Error("the connection is locked for ever")
			}
		})
	}
}

// linked serves a link on that connection; the channel is closed when it has ended.
func linked(s *Server, network net.Conn) <-chan struct{} {
	c, run := newConn(s, network), make(chan struct{})
	s.begin(c)
	go func() {
		defer close(run)
		defer s.forget(c)
		c.run(nil)
	}()
	return run
}

// ended waits until a link and its streams have ended.
func ended(t *testing.T, s *Server, run <-chan struct{}) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	select {
	case <-run:
	case <-ctx.Done():
		t.Fatal("the link does not end")
	}
	if err := s.Stop(ctx); err != nil {
		t.Errorf("%v: %d links and %d streams are left", err, s.Links(), s.Streams())
	}
}

// TestAPanicInTheWritingEndsItsLinkAlone: whoever writes then, the link's own goroutine or one that has answered.
func TestAPanicInTheWritingEndsItsLinkAlone(t *testing.T) {
	for name, request := range map[string][]byte{"its writer": appendPing(nil, typePing, []byte("are you?")), "a worker": get(2, "/"), "later": get(1, "/")} {
		t.Run(name, func(t *testing.T) {
			s := quiet(idle)
			ours, theirs := net.Pipe()
			broken := breaking{ours, make(chan struct{})}
			run := linked(s, broken)
			go func() { _, _ = io.Copy(io.Discard, theirs) }() // ends with the link
			p := &peer{T: t, net: theirs}
			p.send(appendHello(nil, silent))
			close(broken.now)
			p.send(request)
			ended(t, s, run)
		})
	}
}

func TestAPanicInTheSweepEndsItsLinkAlone(t *testing.T) {
	s := quiet(func() Load { panic("on purpose") })
	ours, theirs := net.Pipe()
	run := linked(s, ours)
	go func() { _, _ = io.Copy(io.Discard, theirs) }() // ends with the link
	p := &peer{T: t, net: theirs}
	p.send(append(appendHello(nil, silent), get(2, "/")...))
	ended(t, s, run)
}
