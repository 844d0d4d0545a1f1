package http1

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"sync"
)

// A chunk's size line and the trailers are for programs to write, and short.
const (
	maxChunkLine = 256
	maxTrailers  = 4 << 10
)

var errChunk = errors.New("the chunked body is malformed")

// body is what the request of a connection has for a body. Of a body with a length what is not in the buffer yet is read straight to
// where the handler wants it.
type body struct {
	c       *conn
	left    int64 // bytes of the body, or of the chunk, still to be read
	chunked bool
	begun   bool // a chunk has been read, and its line end comes next
	ended   bool
	expects bool // the client waits for 100 Continue
	err     error
	closed  bool

	unwanted bool // the handler has returned, and the rest is passed over
}

func (b *body) Read(p []byte) (int, error) {
	switch {
	case b.closed:
		return 0, http.ErrBodyReadAfterClose
	case b.err != nil:
		return 0, b.err
	case b.ended:
		return 0, io.EOF
	case len(p) == 0:
		return 0, nil
	}
	if b.expects {
		b.expects = false
		if err := b.c.response.proceed(); err != nil {
			b.err = err
			return 0, err
		}
	}
	if b.chunked && b.left == 0 {
		if b.err = b.nextChunk(); b.err != nil || b.ended {
			return 0, b.end()
		}
	}
	n, err := b.c.read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	b.ended = b.left == 0 && !b.chunked
	if err != nil {
		if err == io.EOF { //nolint:errorlint // as io.Reader has it
			err = io.ErrUnexpectedEOF
		}
		b.err = err
		return n, err
	}
	if b.ended {
		return n, io.EOF
	}
	return n, nil
}

func (b *body) end() error {
	if b.err != nil {
		return b.err
	}
	return io.EOF
}

// nextChunk reads the line that begins a chunk, or the last chunk and the trailers.
func (b *body) nextChunk() error {
	if b.begun {
		if line, err := b.c.line(0); err != nil || len(line) > 0 {
			return firstError(err, errChunk)
		}
	}
	b.begun = true
	line, err := b.c.line(maxChunkLine)
	if err != nil {
		return err
	}
	digits, extension, _ := bytes.Cut(line, []byte(";"))
	if controls(extension) {
		return errChunk
	}
	if len(digits) == 0 || len(digits) > 15 {
		return errChunk
	}
	for _, c := range digits {
		value := bytes.IndexByte([]byte("0123456789abcdef"), c|0x20)
		if '0' <= c && c <= '9' {
			value = int(c - '0')
		} else if !alphanumeric(c) || value < 0 {
			return errChunk
		}
		b.left = b.left<<4 | int64(value)
	}
	if b.left > 0 {
		return nil
	}
	for size := 0; size <= maxTrailers; size += len(line) {
		if line, err = b.c.line(maxTrailers); err != nil {
			return err
		}
		if len(line) == 0 {
			b.ended = true
			return nil
		}
		if name, value, found := bytes.Cut(line, []byte(":")); !found || !isToken(string(name)) || controls(value) {
			return errChunk
		}
	}
	return errChunk
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// Close is for http.Request's contract; the connection reads what is left, or ends.
func (b *body) Close() error {
	b.closed = true
	return nil
}

// scraps are where bodies go that nobody wants.
var scraps = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// rest reads what the handler left, up to Limits.MaxUnread; false: the connection cannot go on, or the server stops. What has come with
// the head, as small bodies do, costs nothing.
func (b *body) rest() bool {
	b.closed, b.unwanted = false, true
	if b.expects {
		return false
	}
	if !b.chunked && b.err == nil {
		passed := min(b.left, int64(b.c.end-b.c.start))
		b.c.start += int(passed)
		b.left -= passed
		b.ended = b.left == 0
	}
	if b.ended {
		return true
	}
	scrap := scraps.Get().(*[32 << 10]byte)
	defer scraps.Put(scrap)
	b.c.expect(b.c.begun, b.c.server.Limits.BodyTimeout) // before hasten may set an earlier deadline
	b.c.state.Store(passing)
	for size := int64(0); !b.ended && size <= b.c.server.unread(); {
		n, err := b.Read(scrap[:])
		if size += int64(n); err != nil {
			break
		}
	}
	return b.c.state.CompareAndSwap(passing, busy) && b.ended
}
