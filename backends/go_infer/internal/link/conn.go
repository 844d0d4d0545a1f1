package link

import (
	"context"
	"errors"
	"net"
	"runtime"
	"sync"
	"time"

	"sluicegate/go_infer/internal/panics"
)

const (
	readBuffer  = 64 << 10
	idleTimeout = 2 * time.Minute // as on the HTTP listener; a gateway's link asks for a sign of life more often
	helloWithin = 10 * time.Second
	writeWithin = 30 * time.Second
	lastWords   = time.Second // for what is still to be written when the peer is gone or has broken the protocol
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
	sweeping bool
	loadAt   time.Time
	loadSaid Load

	roused  func() // rouse, bound once
	wake    chan struct{}
	written chan struct{} // closed when the writer has ended
	sweeper *time.Timer

	// of whoever is writing
	spare []byte
	set   time.Time // when the write deadline was
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
	go c.write()
	err := panics.Guard(c.server.Log, "a link", func() error { return c.readAll(early) })
	_ = c.net.SetWriteDeadline(time.Now().Add(lastWords))
	var broken *violation
	c.mu.Lock()
	if errors.As(err, &broken) && !c.closed {
		c.server.violations.Add(1)
		c.server.Log.Warn("a link's peer broke the protocol", "peer", c.remote, "code", broken.code, "error", broken.text)
		c.out = appendError(c.out, broken.code, broken.text)
	}
	c.closing = true
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
	c.mu.Unlock()
	<-c.written
}

// -- reading

func (c *conn) readAll(early []byte) error {
	buffer := make([]byte, max(readBuffer, len(early)))
	have := copy(buffer, early)
	decoder := newDecoder(c.server.mine, false)
	var f frame
	now := time.Now()
	if err := c.net.SetReadDeadline(now.Add(helloWithin)); err != nil {
		return err
	}
	set := now
	need := headerSize
	for {
		start := 0
		for {
			taken, wanted, err := decoder.next(buffer[start:have], &f)
			if err != nil {
				return err
			}
			if taken == 0 {
				need = wanted
				break
			}
			start += taken
			if err := c.take(&f, now); err != nil {
				return err
			}
		}
		if start > 0 {
			have = copy(buffer, buffer[start:have])
		}
		if need > len(buffer) {
			larger := make([]byte, need)
			copy(larger, buffer[:have])
			buffer = larger
		} else if have == 0 && len(buffer) > readBuffer {
			buffer = make([]byte, readBuffer)
		}
		n, err := c.net.Read(buffer[have:])
		if err != nil {
			return err
		}
		have += n
		now = time.Now()
		if decoder.greeted && now.Sub(set) > time.Second {
			set = now
			if err := c.net.SetReadDeadline(now.Add(idleTimeout)); err != nil {
				return err
			}
		}
	}
}

// errEnded ends the reader without a complaint.
var errEnded = errors.New("the peer ended the link")

func (c *conn) take(f *frame, now time.Time) error {
	switch f.kind {
	case typeRequest:
		return c.open(f, now)
	case typeData:
		return c.data(f)
	case typeWindow:
		return c.window(f)
	case typeCancel:
		return c.cancel(f)
	case typePing:
		c.mu.Lock()
		c.out = appendPing(c.out, typePong, f.body)
		c.kick()
		full := len(c.out) > maxQueued
		c.mu.Unlock()
		if full {
			return breach(errFlow, "the peer does not read")
		}
	case typeHello:
		c.mu.Lock()
		c.theirs = f.announced
		c.credit = int64(f.announced.connectionWindow)
		c.mu.Unlock()
	case typeError:
		return errEnded
	}
	return nil
}

func (c *conn) open(f *frame, now time.Time) error {
	size := int64(len(f.body))
	c.mu.Lock()
	if f.stream <= c.highest {
		c.mu.Unlock()
		return breach(errStream, "stream %d after %d", f.stream, c.highest)
	}
	c.highest = f.stream
	if c.allowed -= size; c.allowed < 0 || size > int64(c.server.mine.streamWindow) {
		c.mu.Unlock()
		return breach(errFlow, "stream %d is over a window", f.stream)
	}
	if len(c.streams) >= int(c.server.mine.maxStreams) {
		c.mu.Unlock()
		return breach(errStream, "more than %d streams", c.server.mine.maxStreams)
	}
	if len(c.out) > maxQueued {
		c.mu.Unlock()
		return breach(errFlow, "the peer does not read")
	}
	if c.refusing || c.closing {
		c.out = appendCancel(c.out, f.stream, cancelRefused)
		c.grant(size)
		c.kick()
		c.mu.Unlock()
		return nil
	}
	s := newStream(c, f, now)
	c.streams[f.stream] = s
	if !c.sweeping {
		c.sweeping = true
		if c.sweeper == nil {
			c.sweeper = time.AfterFunc(sweepEvery, c.sweep)
		} else {
			c.sweeper.Reset(sweepEvery)
		}
	}
	c.mu.Unlock()
	c.server.total.Add(1)
	c.server.open.Add(1)
	if !s.begin() {
		c.server.hand(s)
	}
	return nil
}

func (c *conn) data(f *frame) error {
	size := int64(len(f.body))
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.stream > c.highest {
		return breach(errStream, "data on stream %d, which was never opened", f.stream)
	}
	if c.allowed -= size; c.allowed < 0 {
		return breach(errFlow, "the connection is over its window")
	}
	s := c.streams[f.stream]
	if s == nil || s.closed || s.cancelled != 0 {
		c.grant(size) // it was under way when the stream ended
		c.kick()
		return nil
	}
	if s.whole {
		return breach(errStream, "data after the end of stream %d", f.stream)
	}
	if s.allowed -= size; s.allowed < 0 {
		return breach(errFlow, "stream %d is over its window", f.stream)
	}
	s.body = append(s.body, f.body...)
	s.inline += len(f.body)
	s.whole = f.end
	c.arrived.Broadcast()
	return nil
}

func (c *conn) window(f *frame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.stream == 0 {
		if c.credit += int64(f.credit); c.credit > maxWindow {
			return breach(errFlow, "more credit than can be")
		}
		c.sendOn()
		return nil
	}
	if f.stream > c.highest {
		return breach(errStream, "credit for stream %d, which was never opened", f.stream)
	}
	if s := c.streams[f.stream]; s != nil {
		if s.credit += int64(f.credit); s.credit > maxWindow {
			return breach(errFlow, "more credit than can be")
		}
		s.sendable.Broadcast()
	}
	return nil
}

func (c *conn) cancel(f *frame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.stream > c.highest {
		return breach(errStream, "stream %d is cancelled, which was never opened", f.stream)
	}
	s := c.streams[f.stream]
	if s == nil || s.closed || s.cancelled != 0 {
		return nil
	}
	c.server.cancelled.Add(1)
	s.cancelled = max(f.code, 1)
	s.context.end(context.Canceled)
	c.arrived.Broadcast()
	s.sendable.Broadcast()
	return nil
}

// -- under the mutex

// kick sees to it that somebody writes.
func (c *conn) kick() {
	if !c.writing && (len(c.out) > 0 || c.closing) {
		c.writing = true
		c.rouse()
	}
}

// rouse wakes the writer; once is enough.
func (c *conn) rouse() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// sendOn wakes everybody who waits for something that all streams share.
func (c *conn) sendOn() {
	for _, s := range c.streams {
		s.sendable.Broadcast()
	}
}

func (c *conn) paused() bool { return len(c.out) > softQueued && !c.closed }

// respond adds a RESPONSE; heads that come again are said once. The length is told where END does not tell it.
func (c *conn) respond(s *stream, body []byte, end bool) {
	var extra []byte
	if !end || s.request.Method == "HEAD" {
		if length := s.fields.Get("Content-Length"); length != "" {
			extra = appendField(nil, "Content-Length", length)
		}
	}
	said := s.scratch
	slot := c.known[string(said)]
	switch {
	case slot > 0:
		said = nil
	case len(said) > 0 && len(said) <= maxRemembered && len(c.known) < min(ourSlots, int(c.theirs.slots)):
		slot = uint16(len(c.known) + 1)
		c.known[string(said)] = slot
	case len(said) > 65535:
		said = nil // nothing sensible has so much to say
	}
	c.out = appendResponse(c.out, s.id, uint16(s.code), slot, extra, said, body, end)
}

// grant lets the peer send as much again, in large pieces.
func (c *conn) grant(size int64) {
	c.owed += size
	if window := int64(c.server.mine.connectionWindow); 2*c.owed >= window {
		c.out = appendWindow(c.out, 0, uint32(c.owed))
		c.allowed += c.owed
		c.owed = 0
	}
}

// consumed counts bytes that the handler has read of a body that comes in pieces.
func (c *conn) consumed(s *stream, size int) {
	if s.whole {
		return // the rest is granted when the stream ends
	}
	s.inline -= size
	c.grant(int64(size))
	s.granted += int64(size)
	if window := int64(c.server.mine.streamWindow); 2*s.granted >= window {
		c.out = appendWindow(c.out, s.id, uint32(s.granted))
		s.allowed += s.granted
		s.granted = 0
	}
	c.kick()
}

// -- ends of streams

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

// -- time

// sweep ends what is late and reports the load, as long as there is anything to do.
func (c *conn) sweep() {
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

// drain tells the peer to open nothing new here.
func (c *conn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = appendDrain(c.out)
	c.kick()
}

// refuse ends the link when the last stream has; what still comes is refused.
func (c *conn) refuse() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refusing = true
	if len(c.streams) == 0 {
		c.closing = true
	}
	c.kick()
}

// cut ends the waiting for bodies that have not arrived: their requests are refused.
func (c *conn) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.streams {
		if !s.whole && !s.closed && s.cancelled == 0 {
			s.cut = true
			c.server.cut.Add(1)
		}
	}
	c.arrived.Broadcast()
}

// -- writing

func (c *conn) write() {
	defer close(c.written)
	defer c.net.Close()
	for range c.wake {
		if c.flush() {
			return
		}
	}
}

// flush writes until nothing is left, and says whether the link is over. The caller has set writing.
func (c *conn) flush() (over bool) {
	runtime.Gosched() // whoever else has an answer ready adds it first: one write then carries them all
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.out) > 0 && !c.closed {
		data, closing := c.out, c.closing
		c.out, c.spare = c.spare[:0], nil
		if len(data) > softQueued {
			c.sendOn()
		}
		c.mu.Unlock()
		if now := time.Now(); !closing && now.Sub(c.set) > time.Second {
			c.set = now
			_ = c.net.SetWriteDeadline(now.Add(writeWithin))
		}
		_, err := c.net.Write(data)
		c.mu.Lock()
		if cap(data) <= keepBuffer {
			c.spare = data
		}
		if err != nil {
			c.closed, c.closing, c.out = true, true, nil
		}
	}
	c.writing = false
	if c.closing && !c.closed {
		c.closed = true
	}
	if c.closed {
		c.arrived.Broadcast()
		c.sendOn()
	}
	return c.closed
}
