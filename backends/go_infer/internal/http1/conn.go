package http1

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"sluicegate/go_infer/internal/panics"
	"sluicegate/go_infer/internal/stop"
)

const (
	firstBuffer = 4 << 10
	linger      = 500 * time.Millisecond // for the client to read the last answer, before what it still sends would reset it away
	lingerBytes = 1 << 20
)

// pending is what the kernel has of a connection.
type pending int

const (
	silent  pending = iota // nothing, and the client is there
	waiting                // bytes
	gone
)

// The states of a connection: only one that is idle may be closed by others, and only one that is passing hastened.
const (
	idle int32 = iota
	busy
	passing // it has answered, and reads what is left of the body so that it can go on
	closed
)

// conn is one connection; but for its state and its context, its own goroutine's alone.
type conn struct {
	server *Server
	net    net.Conn
	raw    syscall.RawConn // nil: not of the kernel
	number uint64          // for the watcher
	remote string
	state  atomic.Int32
	// arriving: it waits for more of a request, with its deadline set
	arriving atomic.Bool
	context  requestContext

	buffer     []byte
	start, end int // of what was read and not used

	head     *head
	base     *http.Request // empty, with the context
	request  *http.Request
	url      url.URL
	body     body
	response response

	now     time.Time // when the head was whole, or nearly
	begun   time.Time // when the first byte of the request was seen
	readBy  time.Time // the deadlines, as set
	writeBy time.Time
}

func newConn(s *Server, network net.Conn) *conn {
	c := &conn{server: s, net: network, remote: network.RemoteAddr().String(), buffer: make([]byte, firstBuffer)}
	if system, ok := network.(syscall.Conn); ok {
		c.raw, _ = system.SyscallConn()
	}
	c.base = (&http.Request{}).WithContext(&c.context)
	c.request = c.base.WithContext(&c.context)
	c.body.c, c.response.c = c, c
	c.response.fields = http.Header{}
	return c
}

func (c *conn) serve() {
	defer func() { // even if a handler has ended this goroutine
		if reason := recover(); reason != nil {
			_ = panics.Stopped(c.server.Log, "a connection", reason, "peer", c.remote)
		}
		if !c.response.hijacked {
			c.context.end()
			_ = c.net.Close()
			c.server.forget(c)
		}
	}()
	if c.server.watcher != nil && c.raw != nil {
		if err := c.server.watcher.add(c); err != nil && !errors.Is(err, net.ErrClosed) {
			c.server.blind.Do(func() { c.server.Log.Warn("clients that leave will not be noticed", "error", err) })
		}
	}
	for c.next() && c.answer() {
		if c.start == c.end && !c.state.CompareAndSwap(busy, idle) {
			break
		}
	}
}

// closeIfIdle ends a connection that is between requests; its goroutine sees to the rest.
func (c *conn) closeIfIdle() {
	if c.state.CompareAndSwap(idle, closed) {
		_ = c.net.Close()
	}
}

// hasten ends the wait of a connection for what it does not want any more.
func (c *conn) hasten() {
	if c.state.CompareAndSwap(passing, busy) {
		_ = c.net.SetReadDeadline(time.Now())
	}
}

// next waits for a request and reads its head; false if there is none any more.
func (c *conn) next() bool {
	if c.start == c.end {
		c.start, c.end = 0, 0
		c.expect(time.Now(), c.server.Limits.IdleTimeout)
		n, err := c.net.Read(c.buffer)
		c.end = n
		if err != nil || !c.state.CompareAndSwap(idle, busy) {
			return false
		}
	}
	c.now = time.Now()
	c.begun, c.body.unwanted = c.now, false
	seen, limits := 0, &c.server.Limits
	for waited := false; ; waited = true {
		data := c.buffer[c.start:c.end]
		if c.head != nil {
			if size := c.head.again(data, limits.MaxHeader); size > 0 {
				c.start += size
				return true
			}
		}
		if size := headEnd(data, seen); size > 0 && size <= limits.MaxHeader {
			head, problem := parse(data[:size], limits.MaxFields)
			if problem != nil {
				c.refuse(problem)
				return false
			}
			c.start += size
			c.head = head
			return true
		} else if size > 0 || len(data) > limits.MaxHeader {
			c.refuse(tooLong(data[:min(len(data), limits.MaxHeader)], limits.MaxHeader))
			return false
		}
		if p := hopeless(data, seen); p != nil {
			c.refuse(p)
			return false
		}
		seen = len(data)
		if !waited {
			c.expectExactly(c.begun, limits.HeaderTimeout)
		}
		if err := c.more(); err != nil {
			var timeout net.Error
			switch {
			case errors.Is(err, stop.ErrArriving):
				c.refuse(&problem{http.StatusServiceUnavailable, err.Error()})
			case errors.As(err, &timeout) && timeout.Timeout():
				c.refuse(&problem{http.StatusRequestTimeout, "the head did not arrive within " + limits.HeaderTimeout.String()})
			}
			return false
		}
		c.now = time.Now()
	}
}

// hopeless refuses at once what cannot become a head: its client may wait for an answer. The bytes before seen were looked at.
func hopeless(data []byte, seen int) *problem {
	for i := seen; i < len(data); i++ {
		if data[i] == '\n' && (i == 0 || data[i-1] != '\r') {
			return bad("a line ends without CR")
		}
	}
	return nil
}

// tooLong says what of a head is too long: its first line, or all of it.
func tooLong(data []byte, limit int) *problem {
	if bytes.IndexByte(data, '\n') >= 0 {
		return &problem{http.StatusRequestHeaderFieldsTooLarge, "line and fields have more than " + strconv.Itoa(limit) + " bytes"}
	}
	return &problem{http.StatusRequestURITooLong, "the line has more than " + strconv.Itoa(limit) + " bytes"}
}

// answer calls the handler and sends what it says; false if the connection is to end.
func (c *conn) answer() bool {
	h, r, w := c.head, c.request, &c.response
	*r = *c.base
	r.Method, r.RequestURI, r.Host, r.Header, r.RemoteAddr = h.method, h.target, h.host, h.fields, c.remote
	c.url = h.url
	r.URL = &c.url
	r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/1.1", 1, h.minor
	if h.minor == 0 {
		r.Proto = "HTTP/1.0"
	}
	r.ContentLength, r.Close = h.length, !h.keep
	c.body = body{c: c, left: max(h.length, 0), chunked: h.length < 0, ended: h.length == 0, expects: h.expects}
	r.Body = http.NoBody
	if h.length != 0 {
		r.Body = &c.body
	}
	if h.length < 0 {
		r.TransferEncoding = chunkedCoding
	}
	clear(w.fields)
	*w = response{c: c, fields: w.fields, held: w.held[:0], out: w.out[:0], length: -1}
	if limit := c.server.Limits.WriteTimeout; limit > 0 && c.now.Add(limit).Sub(c.writeBy) > slack(limit) {
		c.writeBy = c.now.Add(limit)
		_ = c.net.SetWriteDeadline(c.writeBy)
	}
	if !c.handle() {
		return false
	}
	if w.hijacked {
		return false
	}
	w.finish()
	c.trim()
	switch {
	case w.err != nil || c.context.Err() != nil && c.start == c.end:
		return false
	case !c.head.keep && c.body.ended && c.start == c.end:
		return false // the client said that this was its last
	case w.close || !c.body.ended && !c.body.rest():
		c.linger()
		return false
	}
	return true
}

var chunkedCoding = []string{"chunked"}

// handle is false if the handler has panicked: what it left is not to be trusted, and the client sees that by the end of the connection.
func (c *conn) handle() (good bool) {
	defer func() {
		c.body.closed = true
		if good {
			return
		}
		if reason := recover(); reason != nil && reason != http.ErrAbortHandler {
			_ = panics.Stopped(c.server.Log, "a handler", reason, "path", c.request.URL.Path)
		}
	}()
	c.server.Handler.ServeHTTP(&c.response, c.request)
	return true
}

// trim gives large buffers back, which one rare large request has made.
func (c *conn) trim() {
	if cap(c.response.held) > holdBack+copyUpTo {
		c.response.held = nil
	}
	if c.start == c.end && len(c.buffer) > firstBuffer {
		c.buffer, c.start, c.end = make([]byte, firstBuffer), 0, 0
	}
	if len(c.head.raw) > firstBuffer {
		c.head.raw = "" // matches nothing
	}
}

// refuse answers what is no request; the connection ends.
func (c *conn) refuse(p *problem) {
	text := strconv.Itoa(p.code) + " " + http.StatusText(p.code)
	answer := "HTTP/1.1 " + text + "\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n" +
		"Content-Length: " + strconv.Itoa(len(text)+2+len(p.text)+1) + "\r\n\r\n" + text + ": " + p.text + "\n"
	_ = c.net.SetWriteDeadline(time.Now().Add(linger))
	_, _ = io.WriteString(c.net, answer)
	c.linger()
}

// linger ends our side, and reads on for a moment: closing at once would make the kernel reset the answer away.
func (c *conn) linger() {
	half, ok := c.net.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	patience := linger
	if over := c.server.over.Load(); over > 0 {
		patience = min(linger, time.Until(time.Unix(0, over))/2)
	}
	_ = c.net.SetReadDeadline(time.Now().Add(patience))
	for size := 0; size < lingerBytes; {
		n, err := c.net.Read(c.buffer)
		if size += n; err != nil {
			return
		}
	}
}

// -- reading

// slack is by how much a deadline may be early: moving it for every request costs more than that is worth.
func slack(limit time.Duration) time.Duration { return min(limit/8, time.Second) }

// expect sets the read deadline, unless it is about there.
func (c *conn) expect(now time.Time, limit time.Duration) {
	if limit <= 0 {
		return
	}
	if early := now.Add(limit).Sub(c.readBy); early > slack(limit) || early < 0 {
		c.expectExactly(now, limit)
	}
}

func (c *conn) expectExactly(now time.Time, limit time.Duration) {
	if limit > 0 {
		c.readBy = now.Add(limit)
		_ = c.net.SetReadDeadline(c.readBy)
	}
}

// more reads on behind what is in the buffer, and makes room for it.
func (c *conn) more() error {
	if c.start > 0 {
		c.end = copy(c.buffer, c.buffer[c.start:c.end])
		c.start = 0
	}
	if c.end == len(c.buffer) {
		c.buffer = append(c.buffer, make([]byte, len(c.buffer))...)
	}
	n, err := c.arrive(c.buffer[c.end:])
	c.end += n
	if n > 0 {
		return nil
	}
	return err
}

// read is for bodies: from the buffer, else from the kernel.
func (c *conn) read(p []byte) (int, error) {
	if c.start < c.end {
		n := copy(p, c.buffer[c.start:c.end])
		c.start += n
		return n, nil
	}
	c.expect(c.begun, c.server.Limits.BodyTimeout)
	return c.arrive(p)
}

// arrive waits for more of a request. Its deadline is set before: either this sees that the server does not wait any more, or cutOff sees
// this and ends the wait.
func (c *conn) arrive(p []byte) (n int, err error) {
	c.arriving.Store(true)
	defer c.arriving.Store(false)
	if c.server.over.Load() == 0 {
		n, err = c.net.Read(p)
	}
	var timeout net.Error
	if c.server.over.Load() == 0 || err != nil && !(errors.As(err, &timeout) && timeout.Timeout()) || n > 0 {
		return n, err
	}
	if !c.body.unwanted {
		c.server.cut.Add(1)
	}
	return 0, stop.ErrArriving
}

// line is the next line of a chunked body, without its end, which must be CR LF; it is valid until the next read.
func (c *conn) line(limit int) ([]byte, error) {
	for seen := 0; ; {
		data := c.buffer[c.start:c.end]
		for i := seen; i < len(data) && i <= limit+1; i++ {
			if data[i] != '\n' {
				continue
			}
			if i == 0 || data[i-1] != '\r' {
				return nil, errChunk
			}
			c.start += i + 1
			return data[:i-1], nil
		}
		if seen = len(data); seen > limit+1 {
			return nil, errChunk
		}
		c.expect(c.begun, c.server.Limits.BodyTimeout)
		if err := c.more(); err != nil {
			if err == io.EOF { //nolint:errorlint // as io.Reader has it
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}
