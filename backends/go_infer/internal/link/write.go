package link

import (
	"runtime"
	"time"
)

// What leaves on a link: everything is added to one buffer, and whoever finds that nobody writes does. But for write, leave,
// flush and next, every function here is called with the connection's mutex held.

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

func (c *conn) write() {
	defer close(c.written)
	for range c.wake {
		if c.flush() {
			c.leave()
			return
		}
	}
}

// leave ends our side of the connection. The peer's is read on, for a moment after each frame: to close a connection on which something
// still comes, credit for instance, has the kernel throw away what it has not delivered yet.
func (c *conn) leave() {
	half, can := c.net.(interface{ CloseWrite() error })
	if !can || half.CloseWrite() != nil {
		_ = c.net.Close()
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	long := c.server.linger()
	c.until = time.Now().Add(long)
	c.left.Store(true)
	_ = c.net.SetReadDeadline(time.Now().Add(min(lastWords, long)))
}

// flush writes until nothing is left, and says whether the link is over. The caller has set writing.
func (c *conn) flush() (over bool) {
	defer func() {
		if reason := recover(); reason != nil {
			c.broken(reason)
			over = true
		}
	}()
	runtime.Gosched() // whoever else has an answer ready adds it first: one write then carries them all
	var data []byte
	var err error
	for {
		if data, over = c.next(data, err); data == nil {
			return over
		}
		_, err = c.net.Write(data)
	}
}

// next is what is to be written after data, of which err is what came of it. nil: nothing, and the caller writes no more.
func (c *conn) next(written []byte, err error) (data []byte, over bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if written != nil && cap(written) <= keepBuffer {
		c.spare = written
	}
	if err != nil {
		_ = c.net.Close() // the reader need not wait for who does not read
		c.lose()
	}
	if len(c.out) > 0 && !c.closed {
		data = c.out
		c.out, c.spare = c.spare[:0], nil
		if len(data) > softQueued {
			c.sendOn()
		}
		if now := time.Now(); !c.closing && now.Sub(c.set) > time.Second {
			c.set = now
			_ = c.net.SetWriteDeadline(now.Add(writeWithin))
		}
		return data, false
	}
	c.writing = false
	if c.closing && !c.closed {
		c.lose()
	}
	return nil, c.closed
}

// lose notes that nothing more leaves, and wakes everybody who waits for something of the link.
func (c *conn) lose() {
	c.closed, c.closing, c.out = true, true, nil
	c.arrived.Broadcast()
	c.sendOn()
}
