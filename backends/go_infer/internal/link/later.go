package link

import "net/http"

// How a request is answered in two steps (see Starter), and what becomes of an answer that cannot leave at once: it is kept, and a worker
// waits with it.

// begin has the handler begin to answer, if it can do so without waiting, and says whether it has.
func (s *stream) begin() (began bool) {
	starter := s.conn.server.starter
	if starter == nil || !s.whole || s.head.bad != nil {
		return false
	}
	if s.guarded(func() { began = starter.Start(s, s.request, s.resumed) }) {
		s.end(true)
		call(s.left())
		return true
	}
	return began // and if so the stream may be anybody's by now
}

// resume has the answer written and says the stream's last word, by a goroutine that waits for nothing. after is for when those who
// are answered with it have been.
func (s *stream) resume(answer func()) (after func()) {
	s.later = true
	if failed := s.guarded(answer); !s.end(failed) {
		s.conn.server.hand(s)
		return nil
	}
	return s.left()
}

// left is leave for who cannot write: after has the writer do it.
func (s *stream) left() (after func()) {
	c := s.conn
	if s.leave() {
		return c.roused
	}
	return nil
}

func call(f func()) {
	if f != nil {
		f()
	}
}

// Take writes all of a body and keeps the buffer that it is in, for which the caller is given another: what waits for the peer's credit
// is held once, and is not copied. See api.Keeper.
func (s *stream) Take(body []byte) (instead []byte) {
	s.WriteHeader(http.StatusOK)
	if !s.later || len(s.answer) > 0 || s.bodiless() || s.length >= 0 && int64(len(body)) != s.length {
		_, _ = s.Write(body)
		return body
	}
	s.size = int64(len(body))
	instead, s.answer = s.answer, body
	return instead
}
