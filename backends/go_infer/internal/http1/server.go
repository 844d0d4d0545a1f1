// Package http1 is an HTTP/1.1 server (RFC 9112) for cleartext listeners whose requests are many and small.
//
// Contract: handlers are http.Handlers, and see what net/http would show them, with Flush and Hijack; HTTP/2 and TLS are not spoken.
// A connection is one goroutine, which reads, calls the handler and writes: no goroutine, and in the steady state no allocation, per
// request. A handler must not keep the request, its body, its context or the response writer after it has returned, and must not change
// the request's fields: they are used again.
//
// Invariants:
//   - what is accepted, net/http accepts with the same meaning (fuzzed); where RFC 9112 leaves a choice, the stricter one is taken;
//   - an answer whose length is known leaves in one write, head and body;
//   - no wait for a peer is without a timeout;
//   - the context of a request ends when its client is gone, as the kernel tells it (see watcher).
package http1

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"sluicegate/go_infer/internal/stop"
)

// Limits bound what one peer can take. The zero value of a timeout is none.
type Limits struct {
	HeaderTimeout time.Duration // from the first byte of a request to the end of its head; then 408
	BodyTimeout   time.Duration // from the first byte of a request to the last of its body; then its reader fails as a net.Error does
	WriteTimeout  time.Duration // from the end of the head to the end of the answer
	IdleTimeout   time.Duration // before the first byte of a request
	MaxHeader     int           // bytes of a request's line and fields; beyond, 431, or 414 if the line alone has more
	MaxFields     int           // fields of a request; beyond, 431
	MaxUnread     int64         // bytes of a body no handler wants that are read so that the connection goes on; 0: 256 KiB
}

// Defaults are limits for clients that are programs.
func Defaults() Limits {
	return Limits{
		HeaderTimeout: 10 * time.Second, // Apache 20, nginx 60, Caddy 60
		BodyTimeout:   30 * time.Second,
		WriteTimeout:  time.Minute,
		IdleTimeout:   2 * time.Minute, // longer than the gateway's pool keeps a connection
		MaxHeader:     16 << 10,        // node 16 KiB, nginx 32 KiB
		MaxFields:     128,             // Apache 100, and a proxy adds few
	}
}

// Server is what all connections have in common. Set the fields before Serve.
type Server struct {
	Handler http.Handler
	Limits  Limits
	Log     *slog.Logger

	stopping  atomic.Bool
	over      atomic.Int64 // when a Shutdown ends that waits no longer for what arrives, in nanoseconds since 1970; 0: it does wait
	cut       atomic.Int64 // requests that had not arrived
	short     atomic.Int64 // requests that had not been answered
	mu        sync.Mutex
	watcher   *watcher  // nil: the kernel cannot tell; made by the first Serve
	blind     sync.Once // to clients that leave: told once
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
}

// maxUnread is Limits.MaxUnread of net/http.
const maxUnread = 256 << 10

func (s *Server) unread() int64 {
	if s.Limits.MaxUnread > 0 {
		return s.Limits.MaxUnread
	}
	return maxUnread
}

// Between two looks for connections that have become idle while the server stops: at first, and at most.
const (
	lookSoon = time.Millisecond
	lookLate = 50 * time.Millisecond
)

// Serve accepts until Shutdown, and then returns http.ErrServerClosed. It may run for several listeners at once.
func (s *Server) Serve(listener net.Listener) error {
	s.mu.Lock()
	if s.stopping.Load() {
		s.mu.Unlock()
		_ = listener.Close()
		return http.ErrServerClosed
	}
	if s.listeners == nil {
		s.listeners, s.conns = map[net.Listener]struct{}{}, map[*conn]struct{}{}
		var err error
		if s.watcher, err = newWatcher(); err != nil {
			s.blind.Do(func() { s.Log.Warn("clients that leave will not be noticed", "error", err) })
		}
	}
	s.listeners[listener] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, listener)
		s.mu.Unlock()
	}()
	pause, told := time.Duration(0), time.Time{}
	for {
		network, err := listener.Accept()
		if err == nil {
			pause = 0
			c := newConn(s, network)
			s.mu.Lock()
			s.conns[c] = struct{}{}
			s.mu.Unlock()
			go c.serve()
			continue
		}
		if s.stopping.Load() {
			return http.ErrServerClosed
		}
		var temporary interface{ Temporary() bool }
		if !errors.As(err, &temporary) || !temporary.Temporary() {
			return err
		}
		pause = min(max(2*pause, 5*time.Millisecond), 200*time.Millisecond) // out of file descriptors: that passes

		// Not with every try: it may stay so for long.
		if now := time.Now(); now.Sub(told) >= time.Minute {
			told = now
			s.Log.Warn("no connection can be accepted for now", "error", err)
		}
		time.Sleep(pause)
	}
}

// Shutdown closes the listeners and the connections that are idle, and returns when the others have answered and are closed. When ctx ends
// it closes them as they are, and returns the context's error: their handlers may still run. For what is left of a body that nobody wants it
// does not wait, and for a request that is arriving no longer than until stop.Cutoff: then reading it fails with stop.ErrArriving. Hijacked
// connections are not its concern.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stopping.Store(true)
	s.mu.Lock()
	for listener := range s.listeners {
		_ = listener.Close()
	}
	if s.watcher != nil {
		defer s.watcher.close()
	}
	s.mu.Unlock()
	pause := lookSoon
	next := time.NewTimer(pause)
	defer next.Stop()
	cutoff, end := stop.Timer(ctx)
	defer end()
	for !s.closeIdle() {
		select {
		case <-next.C:
			pause = min(2*pause, lookLate)
			next.Reset(pause)
		case <-cutoff:
			deadline, _ := ctx.Deadline()
			s.cutOff(deadline)
		case <-ctx.Done():
			s.cutShort()
			return ctx.Err()
		}
	}
	return nil
}

// closeIdle closes every connection that is between requests and has none on the way, or soon will be; true: there is no other, and none can come.
func (s *Server) closeIdle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if c.state.Load() == idle && c.pending() != waiting { // closed by its peer, or silent
			c.closeIfIdle()
		}
		c.hasten()
	}
	return len(s.conns) == 0 && len(s.listeners) == 0
}

// cutOff ends the reading of what has not arrived. Who begins to read later sees over.
func (s *Server) cutOff(deadline time.Time) {
	s.over.Store(deadline.UnixNano())
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if c.arriving.Load() {
			_ = c.net.SetReadDeadline(time.Now())
		}
	}
}

// cutShort ends every connection.
func (s *Server) cutShort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if c.state.Load() == busy {
			s.short.Add(1)
		}
		c.context.end()
		_ = c.net.Close()
	}
}

// CutOff is whom Shutdown has cut off.
func (s *Server) CutOff() stop.Cut {
	return stop.Cut{Arriving: s.cut.Load(), Answering: s.short.Load()}
}

func (s *Server) forget(c *conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	if s.watcher != nil {
		s.watcher.forget(c)
	}
}
