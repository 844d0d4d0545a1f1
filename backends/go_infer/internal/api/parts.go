package api

import (
	"fmt"
	"io"
	"net/http"

	"sluicegate/go_infer/internal/status"
)

// smallBody is read at once even if it has two parts: a second read costs more than the copy it spares.
const smallBody = 4 << 10

// ServeParts is Serve for a body of two parts: a head, which the operation finds in x.Body, and raw bytes, which it reads from x
// straight to where they shall lie. A head of -1 bytes is the whole body. A body whose length is not known beforehand, or that is
// compressed, is read whole first.
func ServeParts(w http.ResponseWriter, r *http.Request, limits Limits, head int, gate Gate, operation Operation) int {
	x := exchanges.Get().(*Exchange)
	defer x.recycle()
	x.Request, x.Context, x.Header, x.budget = r, r.Context(), w.Header(), limits.Bodies
	cancel, err := x.deadline()
	if cancel != nil {
		defer cancel()
	}
	if err == nil {
		x.TrustPriority = limits.TrustPriority
		x.Class, err = Class(r, limits)
	}
	if err == nil {
		err = x.pass(gate, limits.MaxBody)
	}
	if err == nil {
		err = x.open(limits.MaxBody, head)
	}
	if err == nil {
		err = operation(x)
	}
	return x.answer(w, limits, err)
}

// open reads the head, or all of the body.
func (x *Exchange) open(limit, head int) error {
	r := x.Request
	if head >= 0 && encoded(r) == "" && r.ContentLength > smallBody && r.ContentLength <= int64(limit) && int64(head) <= r.ContentLength {
		x.unread = int(r.ContentLength) - head
		return x.readAnnounced(head)
	}
	if err := x.read(limit); err != nil {
		return err
	}
	x.split(head)
	return nil
}

// split leaves the head in Body, and the rest to be read.
func (x *Exchange) split(head int) {
	if head >= 0 && head < len(x.Body) {
		x.Body, x.rest = x.Body[:head], x.Body[head:]
	}
}

// Left is how many bytes after the head were not read yet.
func (x *Exchange) Left() int { return x.unread + len(x.rest) }

// Coming says that the rest of the body is read from the connection, at the pace of the client.
func (x *Exchange) Coming() bool { return x.unread > 0 }

// Read gives the next bytes after the head.
func (x *Exchange) Read(memory []byte) (int, error) {
	if len(x.rest) > 0 {
		n := copy(memory, x.rest)
		x.rest = x.rest[n:]
		return n, nil
	}
	if x.unread == 0 {
		return 0, io.EOF
	}
	n, err := x.Request.Body.Read(memory[:min(len(memory), x.unread)])
	x.unread -= n
	if over := x.hold(int(x.Request.ContentLength) - x.unread); over != nil {
		return n, over
	}
	if err == io.EOF && x.unread == 0 {
		err = nil
	} else if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, bodyError(err)
}

// ParseLength reads a header's value as a number of bytes.
func ParseLength(header, value string) (int, error) {
	length := 0
	for i := range len(value) {
		digit := value[i] - '0'
		if digit > 9 || length > 1<<40 {
			length = -1
			break
		}
		length = length*10 + int(digit)
	}
	if length < 0 || value == "" {
		return 0, &status.Error{Code: status.InvalidArgument, Message: fmt.Sprintf("Unable to parse %s, got: %s", header, value)}
	}
	return length, nil
}
