package link

import (
	"net/http"
	"net/url"
	"sync"
	"time"

	"sluicegate/go_infer/internal/panics"
)

// longest is what a request without a deadline of its own gets; the HTTP listener's write timeout is the same.
const longest = 60 * time.Second

// keepBuffer is the largest buffer a stream takes back to the pool.
const keepBuffer = 1 << 20

// stream is one request in work: its context, its body and its http.ResponseWriter. It is pooled whole; nothing of it may be kept by a
// handler that has returned.
//
// The fields below "shared" are guarded by the connection's mutex.
type stream struct {
	id      uint32
	conn    *conn
	head    *head
	begun   time.Time
	context streamContext
	base    *http.Request // empty, with the context
	request *http.Request
	url     url.URL

	resumed func(answer func()) (after func()) // resume, bound once

	// the answer; the handler's goroutine alone
	fields  http.Header
	code    int
	answer  []byte // written, and not sent
	scratch []byte
	later   bool          // whoever answers must not wait
	started bool          // RESPONSE has left
	took    time.Duration // until it left, if more was to come
	length  int64         // of the body, as the handler stated it, or -1
	size    int64         // of the body, as far as it was written

	// shared
	body      []byte    // what came and was not read
	read      int       // of body
	whole     bool      // the last of the body has come
	inline    int       // bytes to be granted anew when the stream ends
	allowed   int64     // bytes the peer may still send
	granted   int64     // bytes read and not granted anew
	credit    int64     // bytes we may send
	sendable  sync.Cond // credit, a cancel, room, the end
	cancelled uint16    // the peer's reason, or 0
	closed    bool      // ended by our side: the peer's frames are late
	cut       bool      // the server stops: what has not come is not waited for
	refused   bool      // somebody has been told so
}

var streams = sync.Pool{New: func() any {
	s := &stream{fields: http.Header{}}
	s.context.done = make(chan struct{})
	s.base = (&http.Request{Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}).WithContext(&s.context)
	s.request = s.base.WithContext(&s.context)
	return s
}}

func newStream(c *conn, f *frame, now time.Time) *stream {
	s := streams.Get().(*stream)
	if s.resumed == nil {
		s.resumed = s.resume
	}
	s.id, s.conn, s.head, s.begun = f.stream, c, f.head, now
	patience := longest
	if f.deadline > 0 {
		patience = time.Duration(f.deadline) * time.Microsecond
	}
	s.context.deadline = now.Add(patience)
	s.context.urgent = f.code > 0
	s.body = append(s.body[:0], f.body...)
	s.whole = f.end
	s.inline = len(f.body)
	s.allowed = int64(c.server.mine.streamWindow) - int64(len(f.body))
	s.credit = int64(c.theirs.streamWindow)
	s.sendable.L = &c.mu
	s.length = -1

	r := s.request
	*r = *s.base
	s.url = url.URL{}
	if f.head.url != nil {
		s.url = *f.head.url
	}
	r.Method, r.URL, r.RequestURI, r.Host, r.Header = f.head.method, &s.url, f.head.target, f.head.host, f.head.fields
	if f.told {
		r.Header = f.head.with(f.extra)
	}
	r.RemoteAddr = c.remote
	r.ContentLength = -1
	if f.end {
		r.ContentLength = int64(len(f.body))
	}
	r.Body = (*streamBody)(s)
	return s
}

func (s *stream) recycle() {
	if s.context.Err() != nil {
		return // its context cannot begin anew
	}
	if cap(s.body) > keepBuffer {
		s.body = nil
	}
	if cap(s.answer) > keepBuffer {
		s.answer = nil
	}
	clear(s.fields)
	s.conn, s.head, s.answer = nil, nil, s.answer[:0]
	s.code, s.later, s.started, s.took, s.size = 0, false, false, 0, 0
	s.context.listener = nil
	s.read, s.granted, s.cancelled, s.closed, s.cut, s.refused = 0, 0, 0, false, false, false
	streams.Put(s)
}

// serve runs the handler, unless it has run, and says the stream's last word.
func (s *stream) serve() {
	c, failed := s.conn, false
	if s.later { // answered by who had no time to wait until the answer can leave
		s.later = false
	} else {
		failed = s.guarded(s.handle)
	}
	s.end(failed)
	if s.leave() && c.flush() {
		c.rouse() // the writer closes what is over
	}
}

// end says the stream's last word; false if that would have to wait and must not.
func (s *stream) end(failed bool) (said bool) {
	c := s.conn
	defer func() {
		if reason := recover(); reason != nil {
			c.broken(reason)
			said = true
		}
	}()
	switch reason := s.reason(); {
	case failed:
		c.end(s, cancelFailed)
	case reason != 0:
		c.end(s, reason)
	default:
		return s.finish()
	}
	return true
}

// leave takes the stream off the connection, and says whether the caller is to see to it that what there is gets written.
func (s *stream) leave() bool {
	c, took := s.conn, s.took
	if took == 0 {
		took = time.Since(s.begun)
	}
	writer := c.forget(s)
	s.recycle()
	c.server.served(took)
	return writer
}

func (s *stream) reason() uint16 {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	return s.cancelled
}

// guarded runs a part of the handler; if it panics the stream has failed.
func (s *stream) guarded(part func()) (failed bool) {
	defer func() {
		if reason := recover(); reason != nil {
			failed = true
			if reason != http.ErrAbortHandler {
				_ = panics.Stopped(s.conn.server.Log, "a handler", reason, "path", s.url.Path)
			}
		}
	}()
	part()
	return false
}

func (s *stream) handle() {
	switch {
	case s.reason() != 0:
	case s.head.bad != nil:
		http.Error(s, "the target is not a URL", http.StatusBadRequest)
	default:
		s.conn.server.Handler.ServeHTTP(s, s.request)
	}
}
