package link

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"sluicegate/go_infer/internal/panics"
)

const (
	readBuffer  = 64 << 10
	idleTimeout = 2 * time.Minute // as on the HTTP listener; a gateway's link asks for a sign of life more often
	helloWithin = 10 * time.Second
	writeWithin = 30 * time.Second
	lastWords   = time.Second // for what is still to be written when the peer is gone or has broken the protocol; then, between two frames of a peer who reads it
	sweepEvery  = 10 * time.Millisecond
	loadEvery   = 100 * time.Millisecond
	maxQueued   = 32 << 20 // bytes that wait for a peer that does not read: more than every window together
	softQueued  = 4 << 20  // above this, large answers wait
	ourSlots    = 64       // response heads we ask a peer to remember
)

// conn is one link. One goroutine reads, and begins to answer what can be begun without waiting (see Starter). Whoever finds that nobody
// writes does so, and takes along what gathers meanwhile: a goroutine that has just answered and may wait (which saves waking another), or
// else the link's writer.
type conn struct {
	server *Server
	net    net.Conn
	remote string
	theirs settings // fixed by HELLO, before any stream

	mu       sync.Mutex
	arrived  sync.Cond // a body, a cancel, the end
	streams  map[uint32]*stream
	highest  uint32
	allowed  int64 // bytes of body the peer may still send
	owed     int64 // bytes consumed and not granted anew
	credit   int64 // bytes of body we may send
	known    map[string]uint16
	out      []byte
	writing  bool // somebody writes, or is about to
	closed   bool // nothing more leaves
	closing  bool // close when everything has left
	refusing bool
	until    time.Time // when reading on ends at the latest, once our side has said everything and ended
	sweeping bool
	loadAt   time.Time
	loadSaid Load
	spare    []byte    // a buffer that was written, for the next
	set      time.Time // when the write deadline was

	roused  func() // rouse, bound once
	wake    chan struct{}
	written chan struct{} // closed when the writer has ended
	left    atomic.Bool   // until is set
	sweeper *time.Timer
}

func newConn(s *Server, network net.Conn) *conn {
	c := &conn{server: s, net: network, remote: network.RemoteAddr().String(), streams: map[uint32]*stream{}, theirs: silent,
		allowed: int64(s.mine.connectionWindow), known: map[string]uint16{}, wake: make(chan struct{}, 1), written: make(chan struct{})}
	c.arrived.L = &c.mu
	c.roused = c.rouse
	return c
}

// run serves the link until it ends. early is what came behind the Upgrade.
func (c *conn) run(early []byte) {
	defer c.net.Close()
	go c.write()
	err := panics.Guard(c.server.Log, "a link", func() error { return c.readAll(early) })
	c.over(err)
	<-c.written
	if isBreach := (*violation)(nil); errors.As(err, &isBreach) {
		_, _ = io.Copy(io.Discard, c.net) // until the peer has read why
	}
}

// over ends everything on the link, for that reason.
func (c *conn) over(err error) {
	var broken *violation
	c.mu.Lock()
	defer c.mu.Unlock()
	if errors.As(err, &broken) && !c.closed {
		c.server.violations.Add(1)
		c.server.Log.Warn("a link's peer broke the protocol", "peer", c.remote, "code", broken.code, "error", broken.text)
		c.out = appendError(c.out, broken.code, broken.text)
	}
	c.closing = true
	_ = c.net.SetWriteDeadline(time.Now().Add(lastWords))
	c.kick()
	open := make([]*stream, 0, len(c.streams))
	for _, s := range c.streams {
		s.cancelled = cancelUnwanted
		open = append(open, s)
	}
	c.arrived.Broadcast()
	c.sendOn()
	for _, s := range open { // still under the lock: a stream that is forgotten may be anybody's
		s.context.end(context.Canceled)
	}
}

// broken ends the link after a panic in what serves it, for what is known of it is not to be trusted. The mutex is not held: every
// section under it ends with its function, however that ends.
func (c *conn) broken(reason any) {
	_ = panics.Stopped(c.server.Log, "a link", reason, "peer", c.remote)
	_ = c.net.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writing = false
	c.lose()
	c.rouse()
}

// end says that a stream ends without (the rest of) an answer.
func (c *conn) end(s *stream, code uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !s.closed {
		s.closed = true
		c.out = appendCancel(c.out, s.id, max(code, 1))
	}
}

// forget says whether the caller is to write what there is.
func (c *conn) forget(s *stream) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.streams, s.id)
	if s.inline > 0 {
		c.grant(int64(s.inline))
		s.inline = 0
	}
	if c.refusing && len(c.streams) == 0 {
		c.closing = true
	}
	if c.writing || len(c.out) == 0 || c.closing {
		c.kick()
		return false
	}
	c.writing = true
	return true
}

// sweep ends what is late and reports the load, as long as there is anything to do.
func (c *conn) sweep() {
	defer func() {
		if reason := recover(); reason != nil {
			c.broken(reason)
		}
	}()
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	late := false
	for _, s := range c.streams {
		if s.context.expire(now) {
			late = true
		}
	}
	if late {
		c.arrived.Broadcast()
	}
	busy := len(c.streams) > 0
	if c.server.Load != nil && (!busy || now.Sub(c.loadAt) >= loadEvery) {
		c.loadAt = now
		if load := c.server.load(); load != c.loadSaid {
			c.loadSaid = load
			c.out = appendLoad(c.out, load)
			c.kick()
		}
	}
	if busy && !c.closed {
		c.sweeper.Reset(sweepEvery)
	} else {
		c.sweeping = false
	}
}
