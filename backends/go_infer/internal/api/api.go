// Package api is what every inference protocol needs of HTTP: a bounded body in a pooled buffer, a deadline, and an answer.
//
// Contract: an Operation returns the answer's JSON appended to the buffer it was given, or an error that knows its status. Serve does
// the rest, so that a protocol package holds nothing but its protocol. Every refusal's body is {"error": "..."}, on every path.
package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"sluicegate/go_infer/internal/jsontensor"
	"sluicegate/go_infer/internal/status"
)

// TimeoutHeader is how long the client will wait, as a Go duration ("250ms") or in grpc-timeout syntax ("250m").
const TimeoutHeader = "X-Request-Timeout"

// keepBuffer is the largest buffer that goes back to the pool; one rare huge request must not keep its memory for ever.
const keepBuffer = 1 << 20

// Limits bound what one request may cost.
type Limits struct {
	MaxBody int // bytes
}

// Exchange is one request in work. Body and Answer live in pooled memory: nothing of them may be kept after the operation returns.
type Exchange struct {
	Request *http.Request
	Context context.Context
	Body    []byte
	Answer  []byte
	Header  http.Header // of the answer; to be touched only by an operation that succeeds
}

// Operation answers one request: it appends JSON to x.Answer.
type Operation func(x *Exchange) error

var exchanges = sync.Pool{New: func() any { return &Exchange{} }}

var jsonType = []string{"application/json"}

// Serve runs an operation and returns the HTTP code it answered with.
func Serve(w http.ResponseWriter, r *http.Request, limits Limits, operation Operation) int {
	x := exchanges.Get().(*Exchange)
	defer x.recycle()
	x.Request, x.Context, x.Header = r, r.Context(), w.Header()
	cancel, err := x.deadline()
	if cancel != nil {
		defer cancel()
	}
	if err == nil {
		err = x.read(limits.MaxBody)
	}
	if err == nil {
		err = operation(x)
	}
	if err != nil {
		return Refuse(w, err)
	}
	x.finish(w)
	return http.StatusOK
}

// finish writes the answer, which is JSON unless the operation said otherwise.
func (x *Exchange) finish(w http.ResponseWriter) {
	if x.Header["Content-Type"] == nil {
		x.Header["Content-Type"] = jsonType
	}
	if len(x.Answer) > 2000 { // below, net/http counts by itself
		x.Header["Content-Length"] = []string{strconv.Itoa(len(x.Answer))}
	}
	_, _ = w.Write(x.Answer) // the client may be gone; there is nobody to tell
}

// Refuse answers with an error's status and {"error": text}.
func Refuse(w http.ResponseWriter, err error) int {
	refusal := status.From(err)
	header := w.Header()
	header["Content-Type"] = jsonType
	code := refusal.Status()
	if code == http.StatusServiceUnavailable || code == http.StatusTooManyRequests {
		header.Set("Retry-After", "1")
	}
	if code == http.StatusRequestEntityTooLarge || code == http.StatusRequestTimeout {
		header.Set("Connection", "close") // the rest of the body is not worth reading
	}
	w.WriteHeader(code)
	text := jsontensor.AppendString([]byte(`{"error":`), refusal.Message)
	_, _ = w.Write(append(text, '}', '\n'))
	return code
}

func (x *Exchange) recycle() {
	x.Request, x.Context, x.Header = nil, nil, nil
	if cap(x.Body) > keepBuffer {
		x.Body = nil
	}
	if cap(x.Answer) > keepBuffer {
		x.Answer = nil
	}
	x.Body, x.Answer = x.Body[:0], x.Answer[:0]
	exchanges.Put(x)
}

// deadline narrows the context if the client said how long it will wait.
func (x *Exchange) deadline() (context.CancelFunc, error) {
	value := x.Request.Header.Get(TimeoutHeader)
	if value == "" {
		return nil, nil
	}
	patience, err := Patience(value)
	if err != nil {
		return nil, err
	}
	var cancel context.CancelFunc
	x.Context, cancel = context.WithTimeout(x.Context, patience)
	return cancel, nil
}

// grpcUnits are the one-letter units of grpc-timeout.
var grpcUnits = map[byte]time.Duration{
	'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond,
}

// Patience reads a timeout: grpc-timeout syntax (digits and one unit of HMSmun) first, else a Go duration.
func Patience(value string) (time.Duration, error) {
	digits, unit := value[:len(value)-1], value[len(value)-1]
	if factor, known := grpcUnits[unit]; known && len(digits) <= 8 {
		if n, err := strconv.ParseUint(digits, 10, 32); err == nil {
			return time.Duration(n) * factor, nil
		}
	}
	patience, err := time.ParseDuration(value)
	if err != nil || patience < 0 {
		return 0, status.Errorf(status.InvalidArgument, "%s: %q is not a duration; write for instance 250ms", TimeoutHeader, value)
	}
	return patience, nil
}

// read reads the whole body into the pooled buffer.
func (x *Exchange) read(limit int) error {
	r := x.Request
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return &status.Error{Code: status.InvalidArgument, HTTP: http.StatusUnsupportedMediaType,
			Message: fmt.Sprintf("Content-Encoding %q is not supported; send the body as it is", encoding)}
	}
	if r.ContentLength > int64(limit) {
		return tooLarge(limit)
	}
	if length := int(r.ContentLength); length >= 0 {
		if cap(x.Body) < length {
			x.Body = make([]byte, 0, length)
		}
		n, err := io.ReadFull(r.Body, x.Body[:length])
		x.Body = x.Body[:n]
		return bodyError(err)
	}
	for len(x.Body) <= limit {
		if len(x.Body) == cap(x.Body) {
			x.Body = append(x.Body, 0)[:len(x.Body)]
		}
		n, err := r.Body.Read(x.Body[len(x.Body):cap(x.Body)])
		x.Body = x.Body[:len(x.Body)+n]
		if errors.Is(err, io.EOF) {
			err = nil
			if len(x.Body) <= limit {
				return nil
			}
		}
		if err != nil {
			return bodyError(err)
		}
	}
	return tooLarge(limit)
}

func tooLarge(limit int) error {
	return &status.Error{Code: status.InvalidArgument, HTTP: http.StatusRequestEntityTooLarge,
		Message: fmt.Sprintf("the body is larger than the %d bytes that --max_body allows", limit)}
}

func bodyError(err error) error {
	var timeout net.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &timeout) && timeout.Timeout():
		return &status.Error{Code: status.DeadlineExceeded, HTTP: http.StatusRequestTimeout, Message: "the body did not arrive in time"}
	case errors.Is(err, io.ErrUnexpectedEOF):
		return status.Errorf(status.InvalidArgument, "the body ended before Content-Length")
	}
	return status.Errorf(status.InvalidArgument, "the body cannot be read: %v", err)
}

// Method refuses every method but the allowed one.
func Method(w http.ResponseWriter, r *http.Request, allowed string) error {
	if r.Method == allowed {
		return nil
	}
	w.Header().Set("Allow", allowed)
	return &status.Error{Code: status.Unimplemented, HTTP: http.StatusMethodNotAllowed,
		Message: fmt.Sprintf("%s is not allowed on %s; use %s", r.Method, r.URL.Path, allowed)}
}
