package link

import (
	"context"
	"errors"
	"time"
)

// What a link's peer says: one goroutine reads it, frame by frame, and passes each on.

func (c *conn) readAll(early []byte) error {
	buffer := make([]byte, max(readBuffer, len(early)))
	have := copy(buffer, early)
	decoder := newDecoder(c.server.mine, false)
	var f frame
	now := time.Now()
	if err := c.net.SetReadDeadline(now.Add(helloWithin)); err != nil {
		return err
	}
	greeted, set := false, now
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
		if decoder.greeted && (!greeted || now.Sub(set) > time.Second || c.left.Load()) {
			greeted, set = true, now
			if err := c.patience(); err != nil {
				return err
			}
		}
		n, err := c.net.Read(buffer[have:])
		if err != nil {
			return err
		}
		have += n
		now = time.Now()
	}
}

// patience sets until when the peer may say nothing.
func (c *conn) patience() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	long := idleTimeout
	if c.left.Load() {
		long = min(lastWords, time.Until(c.until))
	}
	return c.net.SetReadDeadline(time.Now().Add(long))
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
		return c.pong(f)
	case typeHello:
		c.greet(f)
	case typeError:
		return errEnded
	}
	return nil
}

func (c *conn) pong(f *frame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.out = appendPing(c.out, typePong, f.body)
	c.kick()
	if len(c.out) > maxQueued {
		return breach(errFlow, "the peer does not read")
	}
	return nil
}

func (c *conn) greet(f *frame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.theirs = f.announced
	c.credit = int64(f.announced.connectionWindow)
}

func (c *conn) open(f *frame, now time.Time) error {
	s, err := c.admit(f, now)
	if s == nil {
		return err
	}
	c.server.total.Add(1)
	c.server.open.Add(1)
	if !s.begin() {
		c.server.hand(s)
	}
	return nil
}

// admit makes the stream of a REQUEST; nil without an error: it was refused.
func (c *conn) admit(f *frame, now time.Time) (*stream, error) {
	size := int64(len(f.body))
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.stream <= c.highest {
		return nil, breach(errStream, "stream %d after %d", f.stream, c.highest)
	}
	c.highest = f.stream
	if c.allowed -= size; c.allowed < 0 || size > int64(c.server.mine.streamWindow) {
		return nil, breach(errFlow, "stream %d is over a window", f.stream)
	}
	if len(c.streams) >= int(c.server.mine.maxStreams) {
		return nil, breach(errStream, "more than %d streams", c.server.mine.maxStreams)
	}
	if len(c.out) > maxQueued {
		return nil, breach(errFlow, "the peer does not read")
	}
	if c.refusing || c.closing {
		c.out = appendCancel(c.out, f.stream, cancelRefused)
		c.grant(size)
		c.kick()
		return nil, nil
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
	return s, nil
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
	if s.read > len(s.body)/2 { // who reads a little later than it comes must not make all of it be held
		s.body, s.read = append(s.body[:0], s.body[s.read:]...), 0
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
