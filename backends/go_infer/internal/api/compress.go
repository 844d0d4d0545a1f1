package api

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/stop"
)

// Compressed bodies: gzip and deflate (RFC 9110, 8.4.1), one of them, and both sizes bounded by --max_body: that of what arrives, so
// that an endless stream of nothing ends, and that of what it becomes, so that a bomb is refused as soon as it is too large.

// acceptedEncodings is what a refusal of another encoding offers (RFC 9110, 15.5.16).
const acceptedEncodings = "gzip, deflate"

// decoders make a reader of what a body of that encoding becomes.
var decoders = map[string]func(*bufio.Reader) (io.Reader, error){
	"gzip":    gunzip,
	"x-gzip":  gunzip,
	"deflate": inflate,
}

var gunzips = sync.Pool{New: func() any { return new(gzip.Reader) }}

func gunzip(body *bufio.Reader) (io.Reader, error) {
	reader := gunzips.Get().(*gzip.Reader)
	return reader, reader.Reset(body)
}

// inflate reads zlib's format, which is what "deflate" means, or the bare deflate that some clients send instead.
func inflate(body *bufio.Reader) (io.Reader, error) {
	head, err := body.Peek(2)
	if err != nil {
		return nil, err
	}
	if head[0]&0x0f == 8 && (int(head[0])<<8|int(head[1]))%31 == 0 {
		return zlib.NewReader(body)
	}
	return flate.NewReader(body), nil
}

// encoded is how the request's body is encoded; empty if it is as it is.
func encoded(r *http.Request) string {
	encoding := r.Header.Get("Content-Encoding")
	if encoding == "" || strings.EqualFold(encoding, "identity") {
		return ""
	}
	return strings.ToLower(strings.TrimSpace(encoding))
}

// decompress reads the whole of a compressed body.
func (x *Exchange) decompress(encoding string, limit int) error {
	decoder, known := decoders[encoding]
	if !known {
		x.Header.Set("Accept-Encoding", acceptedEncodings)
		return &status.Error{Code: status.InvalidArgument, HTTP: http.StatusUnsupportedMediaType,
			Message: fmt.Sprintf("Content-Encoding %q is not supported; send gzip, deflate or the body as it is", encoding)}
	}
	if x.Request.ContentLength > int64(limit) {
		return tooLarge(limit)
	}
	arriving := &bounded{from: x.Request.Body, left: limit}
	reader, err := decoder(bufio.NewReader(arriving))
	if pooled, ok := reader.(*gzip.Reader); ok {
		defer gunzips.Put(pooled)
	}
	for err == nil {
		if err := x.grow(); err != nil {
			return err
		}
		var n int
		n, err = reader.Read(x.Body[len(x.Body):cap(x.Body)])
		if x.Body = x.Body[:len(x.Body)+n]; len(x.Body) > limit {
			return tooLarge(limit)
		}
	}
	var timeout net.Error
	switch {
	case err == io.EOF && len(x.Body) > 0, err == io.EOF && arriving.any:
		return nil
	case arriving.exceeded:
		return tooLarge(limit)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return status.Errorf(status.InvalidArgument, "the %s body is cut short", encoding)
	case errors.As(err, &timeout), errors.Is(err, stop.ErrArriving):
		return bodyError(err)
	}
	return status.Errorf(status.InvalidArgument, "the body is not %s, which its Content-Encoding says: %v", encoding, err)
}

// bounded gives at most so many bytes, and fails after.
type bounded struct {
	from     io.Reader
	left     int
	exceeded bool
	any      bool
}

var errExceeded = errors.New("the body is too large")

func (b *bounded) Read(to []byte) (int, error) {
	if b.left == 0 {
		var one [1]byte
		if n, err := b.from.Read(one[:]); n == 0 {
			return 0, err
		}
		b.exceeded = true
		return 0, errExceeded
	}
	n, err := b.from.Read(to[:min(len(to), b.left)])
	b.left -= n
	b.any = b.any || n > 0
	return n, err
}

var gzips = sync.Pool{New: func() any {
	writer, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // the level is a valid one
	return writer
}}

// compress returns the answer gzipped if the client asked for that and it is long enough to be worth the time: at BestSpeed about
// 14 ms for a megabyte of numbers, of which it spares half: 40 ms on a wire of 100 Mbit/s. Otherwise it returns the answer as it is.
func (x *Exchange) compress(from int) []byte {
	if from == 0 || len(x.Answer) < from {
		return x.Answer
	}
	x.Header.Add("Vary", "Accept-Encoding")
	if !accepted(x.Request.Header.Values("Accept-Encoding"), "gzip") {
		return x.Answer
	}
	packed := bytes.NewBuffer(make([]byte, 0, len(x.Answer)/2))
	writer := gzips.Get().(*gzip.Writer)
	defer gzips.Put(writer)
	writer.Reset(packed)
	_, err := writer.Write(x.Answer)
	if err = errors.Join(err, writer.Close()); err != nil || packed.Len() >= len(x.Answer) {
		return x.Answer
	}
	x.Header.Set("Content-Encoding", "gzip")
	return packed.Bytes()
}

// accepted tells whether an Accept-Encoding names the coding, with a weight above 0 (RFC 9110, 12.5.3). "*" is not asking for it.
func accepted(values []string, coding string) bool {
	for _, value := range values {
		for part := range strings.SplitSeq(value, ",") {
			name, parameter, weighted := strings.Cut(part, ";")
			if name = strings.TrimSpace(name); !strings.EqualFold(name, coding) && !strings.EqualFold(name, "x-"+coding) {
				continue
			}
			if !weighted {
				return true
			}
			_, text, _ := strings.Cut(parameter, "=")
			weight, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
			return err == nil && weight > 0
		}
	}
	return false
}
