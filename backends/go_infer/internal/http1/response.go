package http1

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	holdBack = 16 << 10 // of an answer of unknown length; what is longer leaves in chunks
	copyUpTo = 8 << 10  // of a body is copied behind its head; for more, writev is cheaper
)

// response is the http.ResponseWriter of one connection, used again for each request. The head is written with the first bytes that leave,
// or with all of them.
type response struct {
	c        *conn
	fields   http.Header
	code     int
	length   int64 // as the handler stated it, -1: it did not
	size     int64 // written by the handler
	held     []byte
	out      []byte
	sent     bool // the head has left
	chunked  bool
	close    bool // the connection ends with this answer
	hijacked bool
	err      error
}

func (w *response) Header() http.Header { return w.fields }

// WriteHeader fixes the status and the length, if there is one. Interim answers are not sent: nobody here has any.
func (w *response) WriteHeader(code int) {
	if w.code != 0 || w.hijacked || code < 200 || code > 999 {
		return
	}
	w.code = code
	w.length = -1
	if stated := w.fields["Content-Length"]; len(stated) > 0 {
		if length, err := strconv.ParseUint(stated[0], 10, 63); err == nil {
			w.length = int64(length)
		} else {
			delete(w.fields, "Content-Length")
		}
	}
}

func (w *response) bodiless() bool {
	return w.c.request.Method == http.MethodHead || w.code == http.StatusNoContent || w.code == http.StatusNotModified
}

func (w *response) Write(data []byte) (int, error) {
	if w.hijacked {
		return 0, http.ErrHijacked
	}
	w.WriteHeader(http.StatusOK)
	if w.length >= 0 && w.size+int64(len(data)) > w.length {
		return 0, http.ErrContentLength
	}
	if w.code == http.StatusNoContent || w.code == http.StatusNotModified {
		return 0, http.ErrBodyNotAllowed
	}
	w.size += int64(len(data))
	switch {
	case w.bodiless():
	case w.length >= 0 && len(w.held) == 0 && (len(data) > copyUpTo || w.size == w.length):
		w.send(data, false)
	case len(data) >= holdBack: // not worth a copy
		if len(w.held) > 0 {
			w.send(w.held, false)
			w.held = w.held[:0]
		}
		w.send(data, false)
	default:
		w.held = append(w.held, data...)
		if len(w.held) >= holdBack {
			w.send(w.held, false)
			w.held = w.held[:0]
		}
	}
	if w.err != nil {
		return 0, w.err
	}
	return len(data), nil
}

// Flush sends what there is; for handlers whose answers come bit by bit.
func (w *response) Flush() { _ = w.FlushError() }

// FlushError is Flush for http.ResponseController.
func (w *response) FlushError() error {
	if w.hijacked {
		return http.ErrHijacked
	}
	w.WriteHeader(http.StatusOK)
	w.send(w.held, false)
	w.held = w.held[:0]
	return w.err
}

// finish sends what has not left yet.
func (w *response) finish() {
	w.WriteHeader(http.StatusOK)
	if !w.sent || len(w.held) > 0 || w.chunked {
		w.send(w.held, true)
	}
	if w.length >= 0 && w.size != w.length && !w.bodiless() {
		w.close = true // a promise that was not kept
	}
}

// send writes the head, if it has not left, and data, in one write; last says that nothing comes after.
func (w *response) send(data []byte, last bool) {
	if w.err != nil {
		return
	}
	out := w.out[:0]
	if !w.sent {
		w.sent = true
		if last && w.length < 0 {
			w.length = w.size
		}
		out = w.head(out)
	}
	if w.bodiless() {
		data, last = nil, false
	}
	if w.chunked && len(data) > 0 {
		out = append(strconv.AppendInt(out, int64(len(data)), 16), "\r\n"...)
	}
	tail := ""
	if w.chunked {
		if len(data) > 0 {
			tail = "\r\n"
		}
		if last {
			tail += "0\r\n\r\n"
		}
	}
	if len(data) <= copyUpTo {
		out = append(append(out, data...), tail...)
		if len(out) > 0 {
			_, w.err = w.c.net.Write(out)
		}
	} else {
		pieces := net.Buffers{out, data}
		if tail != "" {
			pieces = append(pieces, []byte(tail))
		}
		_, w.err = pieces.WriteTo(w.c.net)
	}
	w.out = out[:0]
}

// head appends the status line and the fields, and decides how the answer is framed and whether the connection goes on.
func (w *response) head(out []byte) []byte {
	if w.code == http.StatusOK {
		out = append(out, "HTTP/1.1 200 OK\r\n"...)
	} else {
		out = strconv.AppendInt(append(out, "HTTP/1.1 "...), int64(w.code), 10)
		out = append(append(append(out, ' '), http.StatusText(w.code)...), "\r\n"...)
	}
	if w.fields["Date"] == nil {
		out = append(out, date(w.c.now)...)
	}
	body, old := &w.c.body, w.c.request.ProtoMinor == 0
	if listed(w.fields["Connection"], "close") || !w.c.head.keep || w.c.server.stopping.Load() ||
		!body.ended && (body.err != nil || body.chunked || body.expects || body.left > w.c.server.unread()) {
		w.close = true
	}
	for name, values := range w.fields {
		switch name {
		case "Content-Length", "Transfer-Encoding", "Connection":
			continue
		}
		if !isToken(name) {
			continue
		}
		for _, value := range values {
			out = append(append(append(out, name...), ": "...), clean(value)...)
			out = append(out, "\r\n"...)
		}
	}
	switch {
	case w.code == http.StatusNoContent:
	case w.code == http.StatusNotModified || w.c.request.Method == http.MethodHead && w.size == 0:
		if w.fields["Content-Length"] != nil {
			out = appendLength(out, w.length)
		}
	case w.length >= 0:
		out = appendLength(out, w.length)
	case old:
		w.close = true
	default:
		w.chunked = !w.bodiless()
		out = append(out, "Transfer-Encoding: chunked\r\n"...)
	}
	if w.close {
		out = append(out, "Connection: close\r\n"...)
	} else if old {
		out = append(out, "Connection: keep-alive\r\n"...)
	}
	return append(out, "\r\n"...)
}

func appendLength(out []byte, length int64) []byte {
	return append(strconv.AppendInt(append(out, "Content-Length: "...), length, 10), "\r\n"...)
}

var newlines = strings.NewReplacer("\r", " ", "\n", " ")

// clean takes away what would end a field; the same string if there is nothing.
func clean(value string) string {
	if strings.IndexByte(value, '\n') < 0 && strings.IndexByte(value, '\r') < 0 {
		return value
	}
	return newlines.Replace(value)
}

// proceed says 100 Continue, if the answer has not begun.
func (w *response) proceed() error {
	if w.sent {
		return nil
	}
	_, err := w.c.net.Write([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
	return err
}

// Hijack gives the connection away, with what was read of it and not used.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c := w.c
	if w.hijacked || w.sent {
		return nil, nil, http.ErrHijacked
	}
	w.hijacked = true
	c.server.forget(c)
	_ = c.net.SetDeadline(time.Time{})
	early := append([]byte(nil), c.buffer[c.start:c.end]...)
	reader := bufio.NewReaderSize(io.MultiReader(strings.NewReader(string(early)), c.net), max(4096, len(early)))
	_, _ = reader.Peek(len(early))
	return c.net, bufio.NewReadWriter(reader, bufio.NewWriter(c.net)), nil
}

// stamped is a Date field and the second that it tells.
type stamped struct {
	second int64
	line   string
}

var stamp atomic.Pointer[stamped]

// date is made once a second.
func date(now time.Time) string {
	second := now.Unix()
	last := stamp.Load()
	if last == nil || last.second != second {
		last = &stamped{second, "Date: " + now.UTC().Format(http.TimeFormat) + "\r\n"}
		stamp.Store(last)
	}
	return last.line
}
