package link

import (
	"context"
	"io"

	"sluicegate/go_infer/internal/stop"
)

type streamBody stream

// Read waits for DATA if the body did not come with the REQUEST.
func (b *streamBody) Read(p []byte) (int, error) {
	s, c := (*stream)(b), b.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	for s.read == len(s.body) {
		switch {
		case s.whole:
			return 0, io.EOF
		case s.cancelled != 0 || c.closed:
			return 0, io.ErrUnexpectedEOF
		case s.late():
			return 0, context.DeadlineExceeded
		case s.cut:
			if !s.refused {
				s.refused = true
				c.server.cut.Add(1)
			}
			return 0, stop.ErrArriving
		}
		c.arrived.Wait()
	}
	n := copy(p, s.body[s.read:])
	s.read += n
	if s.read == len(s.body) {
		s.body, s.read = s.body[:0], 0
	}
	c.consumed(s, n)
	return n, nil
}

// late is Err without the lock order's trouble: the sweep wakes readers after it ended the context.
func (s *stream) late() bool { return s.context.Err() != nil }

// Close is for http.Request's contract; what was not read is granted anew when the stream ends.
func (b *streamBody) Close() error { return nil }
