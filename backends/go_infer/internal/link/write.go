package link

import (
	"runtime"
	"time"
)

// What leaves on a link: everything is added to one buffer, and whoever finds that nobody writes does. But for write and flush, every
// function here is called with the connection's mutex held.

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
