package link

// How much body may come, and who waits until some may leave. Every function here is called with the connection's mutex held.

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

// sendOn wakes everybody who waits for something that all streams share.
func (c *conn) sendOn() {
	for _, s := range c.streams {
		s.sendable.Broadcast()
	}
}
