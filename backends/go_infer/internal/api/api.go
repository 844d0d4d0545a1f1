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
	"sync"
	"time"
	"unsafe"

	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/jsontensor"
	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/stop"
)

// TimeoutHeader is how long the client will wait, as a Go duration ("250ms") or in grpc-timeout syntax ("250m").
const TimeoutHeader = "X-Request-Timeout"

// keepBuffer is the largest buffer that goes back to the pool; one rare huge request must not keep its memory for ever.
const keepBuffer = 1 << 20

// Limits bound what one request may cost, and say what of it is heard.
type Limits struct {
	MaxBody  int     // bytes, as it arrives and, if it is compressed, as it becomes
	Bodies   *Budget // of all bodies together; nil: not bounded
	Answer   int     // bytes of an answer; 0: not bounded
	GzipFrom int     // bytes of an answer from which it is gzipped for a client that asks for that; 0: never
	Priority string  // header in which a request says its class; empty: none does

	// TrustPriority believes requests that they are more urgent than others. Without it they can only be less.
	TrustPriority bool
}

// Exchange is one request in work. Body and Answer live in pooled memory: nothing of them may be kept after the operation returns.
type Exchange struct {
	Request *http.Request
	Context context.Context
	Class   batch.Class // how urgent the request says it is
	Body    []byte
	Answer  []byte
	Header  http.Header // of the answer; to be touched only by an operation that succeeds

	TrustPriority bool // as in Limits, of an operation that reads a priority in the body

	unread int    // bytes of the body after the head that are still on their way
	rest   []byte // bytes of the body after the head, if they were read with it
	budget *Budget
	held   int // bytes of it
	later  later
}

// Operation answers one request: it appends JSON to x.Answer.
type Operation func(x *Exchange) error

// Gate refuses a request by its head, before its body is read; nil lets it in. A nil Gate lets all in.
type Gate func(x *Exchange) error

var exchanges = sync.Pool{New: func() any { return &Exchange{} }}

var jsonType = []string{"application/json"}

// Serve runs an operation, if the gate lets the request in, and returns the HTTP code it answered with.
func Serve(w http.ResponseWriter, r *http.Request, limits Limits, gate Gate, operation Operation) int {
	return ServeParts(w, r, limits, -1, gate, operation)
}

// pass asks the gate, if what it may leave unread does not end the connection, and would not be refused for its size.
func (x *Exchange) pass(gate Gate, limit int) error {
	if gate == nil || x.Request.TransferEncoding != nil || x.Request.ContentLength > int64(limit) {
		return nil
	}
	return gate(x)
}

// answer writes the answer, or the refusal.
func (x *Exchange) answer(w http.ResponseWriter, limits Limits, err error) int {
	if err == nil {
		err = limits.checkAnswer(len(x.Answer))
	}
	if err != nil {
		return Refuse(w, err)
	}
	x.finish(w, limits)
	return http.StatusOK
}

func (l *Limits) checkAnswer(bytes int) error {
	if l.Answer == 0 || bytes <= l.Answer {
		return nil
	}
	return status.Errorf(status.InvalidArgument, "the answer has %d bytes, more than the %d that --max_answer allows; ask for fewer rows", bytes, l.Answer)
}

// finish writes the answer, which is JSON unless the operation said otherwise.
func (x *Exchange) finish(w http.ResponseWriter, limits Limits) {
	if x.Header["Content-Type"] == nil {
		x.Header["Content-Type"] = jsonType
	}
	answer := x.compress(limits.GzipFrom)
	if len(answer) > 2000 { // below, it is counted as it leaves
		x.Header["Content-Length"] = []string{strconv.Itoa(len(answer))}
	}
	if keeper, is := w.(Keeper); is && len(answer) >= handOver {
		instead := keeper.Take(answer)
		if unsafe.SliceData(answer) == unsafe.SliceData(x.Answer) { // it was not packed
			x.Answer = instead
		}
		return
	}
	_, _ = w.Write(answer) // the client may be gone; there is nobody to tell
}

// Keeper is a ResponseWriter that can hold an answer until its reader takes it. Take writes all of a body and keeps its buffer, for which
// it gives another: so that a large answer is held once, and not by who made it and by who sends it.
type Keeper interface {
	Take(body []byte) (instead []byte)
}

// handOver is from how many bytes on an answer is handed over; of less a copy costs next to nothing.
const handOver = 32 << 10

// Refuse answers with an error's status and {"error": text}.
func Refuse(w http.ResponseWriter, err error) int {
	refusal := status.From(err)
	header := w.Header()
	header["Content-Type"] = jsonType
	code := refusal.Status()
	if code == http.StatusServiceUnavailable || code == http.StatusTooManyRequests {
		header.Set("Retry-After", strconv.Itoa(refusal.RetrySeconds()))
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
	x.letGo()
	x.Request, x.Context, x.Header = nil, nil, nil
	x.unread, x.rest = 0, nil
	if cap(x.Body) > keepBuffer {
		x.Body = nil
	}
	if cap(x.Answer) > keepBuffer {
		x.Answer = nil
	}
	x.Body, x.Answer = x.Body[:0], x.Answer[:0]
	exchanges.Put(x)
}

// Class is how urgent a request is: as its frame says, if it came on a link, for that is the gateway's word, else ordinary; and what it
// says itself in the header (critical, default or batch) as far as that is believed.
func Class(r *http.Request, limits Limits) (batch.Class, error) {
	granted, _ := r.Context().Value(batch.ContextKey).(batch.Class)
	if limits.Priority != "" {
		if value := r.Header.Get(limits.Priority); value != "" {
			claimed, err := batch.ParseClass(value)
			if err != nil {
				return granted, status.Errorf(status.InvalidArgument, "%s: %v", limits.Priority, err)
			}
			return batch.Claim(claimed, granted, limits.TrustPriority), nil
		}
	}
	return granted, nil
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

// longest is the most patience that counts: days, so that it can be added to the time.
const longest = 1000 * time.Hour

// Patience reads a timeout: grpc-timeout syntax (digits and one unit of HMSmun) first, else a Go duration.
func Patience(value string) (time.Duration, error) {
	digits, unit := value[:len(value)-1], value[len(value)-1]
	if factor, known := grpcUnits[unit]; known && len(digits) <= 8 {
		if n, err := strconv.ParseUint(digits, 10, 32); err == nil {
			return min(time.Duration(n), longest/factor) * factor, nil
		}
	}
	patience, err := time.ParseDuration(value)
	if err != nil || patience < 0 {
		return 0, status.Errorf(status.InvalidArgument, "%s: %q is not a duration; write for instance 250ms", TimeoutHeader, value)
	}
	return min(patience, longest), nil
}

// read reads the whole body into the pooled buffer.
func (x *Exchange) read(limit int) error {
	r := x.Request
	if encoding := encoded(r); encoding != "" {
		return x.decompress(encoding, limit)
	}
	if r.ContentLength > int64(limit) {
		return tooLarge(limit)
	}
	if length := int(r.ContentLength); length >= 0 {
		return x.readAnnounced(length)
	}
	for len(x.Body) <= limit {
		if err := x.grow(); err != nil {
			return err
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
	if err == nil {
		return nil
	}
	var timeout net.Error
	switch {
	case errors.Is(err, stop.ErrArriving):
		return status.Errorf(status.Unavailable, "%v", err)
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
