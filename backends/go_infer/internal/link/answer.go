package link

import (
	"errors"
	"net/http"
	"strconv"
	"time"
)

// The answer of a stream: its http.ResponseWriter, and how what was written leaves.

var (
	errGone    = errors.New("the link is closed")
	errStopped = errors.New("the stream was cancelled")
	errWait    = errors.New("the answer cannot leave yet")
)

// Header is the response's fields.
func (s *stream) Header() http.Header { return s.fields }

// WriteHeader fixes the status and the length, if the handler states one. Interim answers are not said on a link.
func (s *stream) WriteHeader(code int) {
	if s.code != 0 || code < 200 || code > 599 {
		return
	}
	s.code = code
	if stated := s.fields.Get("Content-Length"); stated != "" {
		length, err := strconv.ParseInt(stated, 10, 64)
		if err != nil || length < 0 {
			s.fields.Del("Content-Length")
			return
		}
		s.length = length
	}
}

// Write adds to the body. Up to a chunk is held back, so that most answers are one frame; of more, each chunk leaves as soon as the peer
// takes it. The errors are net/http's, or that nobody wants the answer any more.
func (s *stream) Write(data []byte) (int, error) {
	s.WriteHeader(http.StatusOK)
	if s.bodiless() {
		s.inlineLength(len(data))
		return len(data), nil
	}
	if s.length >= 0 && s.size+int64(len(data)) > s.length {
		return 0, http.ErrContentLength
	}
	s.size += int64(len(data))
	written := 0
	for len(s.answer)+len(data)-written > chunk && !s.later {
		piece := data[written : written+chunk-len(s.answer)]
		s.answer = append(s.answer, piece...)
		if err := s.send(false); err != nil {
			return written, err
		}
		written += len(piece)
	}
	s.answer = append(s.answer, data[written:]...)
	return len(data), nil
}

// Flush sends what there is; for handlers whose answers come bit by bit.
func (s *stream) Flush() { _ = s.FlushError() }

// FlushError is Flush for http.ResponseController.
func (s *stream) FlushError() error {
	s.WriteHeader(http.StatusOK)
	return s.send(false)
}

func (s *stream) bodiless() bool {
	return s.request.Method == http.MethodHead || s.code == http.StatusNoContent || s.code == http.StatusNotModified
}

// inlineLength says how long the body of the answer to HEAD would be, if the handler did not.
func (s *stream) inlineLength(size int) {
	if s.request.Method == http.MethodHead && s.fields.Get("Content-Length") == "" {
		s.fields.Set("Content-Length", strconv.Itoa(size))
	}
}

// finish sends the rest of the answer; false if that would have to wait and must not.
func (s *stream) finish() bool {
	s.WriteHeader(http.StatusOK)
	if s.length >= 0 && s.size != s.length && !s.bodiless() {
		s.conn.end(s, cancelFailed) // net/http breaks the connection off
		return true
	}
	err := s.send(true)
	if err == errWait {
		return false
	}
	if err != nil {
		s.conn.end(s, s.reason())
	}
	return true
}

// send sends the answer so far: RESPONSE if it has not left yet, then DATA, as credit allows.
func (s *stream) send(end bool) error {
	c := s.conn
	rest := s.answer
	c.mu.Lock()
	defer c.mu.Unlock()
	if size := int64(len(rest)); s.later && (size > min(chunk, c.credit, s.credit) || c.paused()) && s.stopped() == nil {
		return errWait
	}
	for first := true; first || len(rest) > 0; first = false {
		size := min(len(rest), chunk)
		for size > 0 && (c.credit <= 0 || s.credit <= 0) || c.paused() {
			if err := s.stopped(); err != nil {
				return err
			}
			if !s.started {
				break // the head at least can leave
			}
			s.sendable.Wait()
		}
		if err := s.stopped(); err != nil {
			return err
		}
		size = int(min(int64(size), max(0, min(c.credit, s.credit))))
		last := end && size == len(rest)
		if !s.started {
			s.started = true
			if !last {
				s.took = time.Since(s.begun)
				s.context.lift()
			}
			s.scratch = appendHead(s.scratch[:0], s.fields)
			c.respond(s, rest[:size], last)
		} else if size > 0 || last {
			c.out = appendData(c.out, s.id, rest[:size], last)
		}
		s.closed = last
		s.credit -= int64(size)
		c.credit -= int64(size)
		rest = rest[size:]
		if !last {
			c.kick()
		} // else the stream's goroutine writes, when it has let go of the stream
	}
	s.answer = s.answer[:0]
	return nil
}

// stopped says whether there is any sense in sending. The connection's mutex is held.
func (s *stream) stopped() error {
	switch {
	case s.conn.closed:
		return errGone
	case s.cancelled != 0:
		return errStopped
	}
	return nil
}
