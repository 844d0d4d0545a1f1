package link

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/panics"
	"sluicegate/go_infer/internal/stop"
)

// longest is what a request without a deadline of its own gets; the HTTP listener's write timeout is the same.
const longest = 60 * time.Second

// keepBuffer is the largest buffer a stream takes back to the pool.
const keepBuffer = 1 << 20

var (
	errGone    = errors.New("the link is closed")
	errStopped = errors.New("the stream was cancelled")
	errWait    = errors.New("the answer cannot leave yet")
)

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
}

// streamContext ends when its stream is cancelled or late. Made for reuse: context.WithDeadline costs a timer and four allocations. One that
// has ended stays so: the goroutines that package context has for what is derived from it ask why it ended, and may do so when the handler
// has long returned.
type streamContext struct {
	mu       sync.Mutex
	deadline time.Time // zero: none any more
	done     chan struct{}
	err      error
	listener batch.Listener // nil: nobody
	urgent   bool           // the frame said a priority; fixed before the handler runs
}

func (c *streamContext) Done() <-chan struct{} { return c.done }

// Value knows how urgent the request is, and nothing else.
func (c *streamContext) Value(key any) any {
	if key == batch.ContextKey && c.urgent {
		return batch.Critical
	}
	return nil
}

func (c *streamContext) Deadline() (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.deadline, !c.deadline.IsZero()
}

// lift takes the deadline away: an answer that has begun lasts as long as its reader wants it.
func (c *streamContext) lift() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = time.Time{}
}

// expire says whether the deadline has passed just now, and ends the context if so.
func (c *streamContext) expire(now time.Time) bool {
	deadline, ok := c.Deadline()
	if !ok || now.Before(deadline) || c.Err() != nil {
		return false
	}
	c.end(context.DeadlineExceeded)
	return true
}

func (c *streamContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *streamContext) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		close(c.done)
		if c.listener != nil {
			c.listener.Over(err)
		}
	}
}

// Notify has the listener told when the context ends, with the connection's mutex held.
func (c *streamContext) Notify(listener batch.Listener) (ended error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listener = nil
	if c.err == nil {
		c.listener = listener
	}
	return c.err
}

var _ batch.Context = (*streamContext)(nil)

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
	s.read, s.granted, s.cancelled, s.closed, s.cut = 0, 0, 0, false, false
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

// end says the stream's last word; false if that would have to wait and must not.
func (s *stream) end(failed bool) bool {
	switch reason := s.reason(); {
	case failed:
		s.conn.end(s, cancelFailed)
	case reason != 0:
		s.conn.end(s, reason)
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

// -- http.ResponseWriter

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

// -- the request's body

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
