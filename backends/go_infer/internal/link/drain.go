package link

import (
	"context"
	"time"

	"sluicegate/go_infer/internal/stop"
)

// How links end when the server does.

// CutOff is whom Stop has cut off.
func (s *Server) CutOff() stop.Cut {
	return stop.Cut{Arriving: s.cut.Load(), Answering: s.short.Load()}
}

// linger is for how long at most a link that has said everything waits for its peer to close: half of what is left of a Stop.
func (s *Server) linger() time.Duration {
	if over := s.over.Load(); over > 0 {
		return min(writeWithin, time.Until(time.Unix(0, over))/2)
	}
	return writeWithin
}

func (s *Server) each(do func(*conn)) {
	s.mu.Lock()
	links := make([]*conn, 0, len(s.links))
	for c := range s.links {
		links = append(links, c)
	}
	s.mu.Unlock()
	for _, c := range links {
		do(c)
	}
}

// Drain tells every peer to open no new stream. What crosses that word is still served, until Stop.
func (s *Server) Drain() {
	s.mu.Lock()
	s.draining = true
	s.mu.Unlock()
	s.each((*conn).drain)
}

// Stop refuses new streams, waits for those under way, and closes every link; when ctx ends it closes them as they are. For bodies that
// are arriving it waits until stop.Cutoff, and has them refused then.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	s.draining, s.stopping = true, true
	s.mu.Unlock()
	if deadline, bounded := ctx.Deadline(); bounded {
		s.over.Store(deadline.UnixNano())
	}
	s.each((*conn).refuse)
	defer s.dismiss()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	cutoff, end := stop.Timer(ctx)
	defer end()
	for s.Links() > 0 || s.open.Load() > 0 {
		select {
		case <-tick.C:
		case <-cutoff:
			s.each((*conn).cut)
		case <-ctx.Done():
			s.each((*conn).cutShort)
			return ctx.Err()
		}
	}
	return nil
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

// cutShort closes the link as it is.
func (c *conn) cutShort() {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.net.Close()
	n := int64(0)
	for _, s := range c.streams {
		if s.cancelled == 0 {
			n++
		}
	}
	if n == 0 && c.writing && !c.closed { // what has been answered has not left
		n = 1
	}
	c.server.short.Add(n)
}

// cut ends the waiting for bodies that have not arrived: their requests are refused.
func (c *conn) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.streams {
		s.cut = true
	}
	c.arrived.Broadcast()
}
