package http1

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// tape is a connection whose client has said all it will say; what it says arrives in pieces of at most size bytes.
type tape struct {
	net.Conn
	says  []byte
	size  int
	hears bytes.Buffer
}

func (c *tape) Read(p []byte) (int, error) {
	if len(c.says) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), c.size)], c.says)
	c.says = c.says[n:]
	return n, nil
}

func (c *tape) Write(p []byte) (int, error)      { return c.hears.Write(p) }
func (c *tape) Close() error                     { return nil }
func (c *tape) RemoteAddr() net.Addr             { return &net.UnixAddr{} }
func (c *tape) SetDeadline(time.Time) error      { return nil }
func (c *tape) SetReadDeadline(time.Time) error  { return nil }
func (c *tape) SetWriteDeadline(time.Time) error { return nil }

// understood is what a server makes of one request: two servers that differ in it can be played off against each other.
func understood(r *http.Request) (string, error) {
	body, err := io.ReadAll(r.Body)
	return fmt.Sprintf("%s %q HTTP/1.%d, host %q, length %d %q, body %q", r.Method, r.RequestURI, r.ProtoMinor, r.Host, r.ContentLength,
		r.Header["Content-Length"], body), err
}

// ours are the requests that this package sees in a stream, each with its whole body, and what it says to the client.
func ours(stream []byte, size int) (requests []string, answers []byte, calls int) {
	s := &Server{Log: slog.New(slog.DiscardHandler), Limits: Limits{MaxHeader: 4096, MaxFields: 100}}
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls++
		text, err := understood(r)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		requests = append(requests, text)
		_, _ = io.WriteString(w, "seen")
	})
	connection := &tape{says: stream, size: size}
	newConn(s, connection).serve()
	return requests, connection.hears.Bytes(), calls
}

// theirs are the requests that net/http sees.
func theirs(stream []byte) (requests []string) {
	reader := bufio.NewReader(bytes.NewReader(stream))
	for {
		r, err := http.ReadRequest(reader)
		if err != nil {
			return requests
		}
		text, err := understood(r)
		if err != nil {
			return requests
		}
		if requests = append(requests, text); r.Close {
			return requests
		}
	}
}

// checkStream fails unless what is accepted of a stream net/http accepts too, with the same bounds and the same meaning, unless every
// handler's answer and at most one refusal come back, well formed, and unless the pieces in which it arrives make no difference.
func checkStream(t *testing.T, stream []byte, size int) (seen, calls int) {
	t.Helper()
	mine, answers, calls := ours(stream, size)
	other := theirs(stream)
	for i, request := range mine {
		if i >= len(other) || other[i] != request {
			t.Fatalf("stream %q\nrequest %d\nhere     %v\nnet/http %v", stream, i, mine, other)
		}
	}
	if whole, _, _ := ours(stream, len(stream)+1); strings.Join(whole, "\n") != strings.Join(mine, "\n") {
		t.Fatalf("stream %q\nat once %v\nby %d   %v", stream, whole, size, mine)
	}
	reader, good, refused := bufio.NewReader(bytes.NewReader(answers)), 0, 0
	for _, request := range append(mine, "") { // the method decides how an answer ends
		method, _, _ := strings.Cut(request, " ")
		for {
			answer, err := http.ReadResponse(reader, &http.Request{Method: method})
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				break
			}
			if err != nil {
				t.Fatalf("stream %q\nanswers %q: %v", stream, answers, err)
			}
			if _, err := io.Copy(io.Discard, answer.Body); err != nil {
				t.Fatalf("stream %q\nanswers %q: %v", stream, answers, err)
			}
			if answer.StatusCode == http.StatusContinue {
				continue
			}
			if answer.StatusCode == http.StatusOK {
				good++
			} else {
				refused++
			}
			break
		}
	}
	if good != len(mine) || refused > 1 {
		t.Fatalf("stream %q\n%d requests, %d answers, %d refusals: %q", stream, len(mine), good, refused, answers)
	}
	return len(mine), calls
}

var streams = []string{
	"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n",
	"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcPOST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nabcd",
	"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nT: u\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n",
	"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 44\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\nX: 0123456\r\n\r\nHEAD /b HTTP/1.1\r\nHost: x\r\n\r\n",
	"POST /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nzGET /e HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /f HTTP/1.0\r\n\r\n",
	"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nX: y\r\n\r\nabcPOST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nX: y\r\n\r\n0123456789" +
		"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nX: y\r\n\r\nPOST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nX: y\r\n\r\nGET ",
	"POST http://y:1/a?b=c%20d HTTP/1.1\r\nHost: x:80\r\nConnection: close, x\r\nContent-Length: 0\r\n\r\nGET /never HTTP/1.1\r\nHost: x\r\n\r\n",
}

// tricks are what request smuggling is made of.
var tricks = []string{
	"Content-Length: 3\r\n", "Content-Length: 0\r\n", "Content-Length : 5\r\n", "Content-Length:\r\n", "Content-Length: 3,3\r\n", "Content-Length: 0x3\r\n",
	"Content-Length: 1_0\r\n", "Content-Length: +3\r\n", "Content-Length: -0\r\n", "Content-Length: 99999999999999999999\r\n", "Content-Length\t: 3\r\n",
	"Transfer-Encoding: chunked\r\n", "Transfer-Encoding: identity\r\n", "Transfer-Encoding: chunked, chunked\r\n", "Transfer-Encoding: xchunked\r\n",
	"Transfer-Encoding:\x0bchunked\r\n", "Transfer-Encoding: chunked\x00\r\n", "Transfer-Encoding: \"chunked\"\r\n", "Transfer-Encoding\r\n : chunked\r\n",
	"Transfer-Encoding: chun\u212aed\r\n", "Connection: clo\u017fe\r\n", "Connection: \u212aeep-alive\r\n", "Expect: 100-continue\r\n", "Trailer: Content-Length\r\n",
	"X: y\r\n z\r\n", "X: y\nTransfer-Encoding: chunked\r\n", "X: y\rContent-Length: 3\r\n", "\r\n", "\n", "\r", "\x00", " ", "\t", ":", ";", "0\r\n", "0\r\n\r\n",
	"00000000000000003\r\n", "fffffffffffffffff\r\n", "3 ;a\r\n", "3;a\nb\r\n", "3\n", "-3\r\n", "0x3\r\n", "+3\r\n", "\r\n\r\n", "Host: z\r\n", "Host:\r\n", "HTTP/1.1", "HTTP/1.2",
	"HTTP/0.9", "HTTP/2.0", "http/1.1", "GET", "CONNECT", "*", "//", "http://", "%", "%zz", "#", "?", "\x7f", "\xff", "\u0130", "Connection: close\r\n", "Upgrade: h2c\r\n",
}

// mutate makes one to four changes: a byte, a piece taken away, doubled or moved, a trick put in.
func mutate(random *rand.Rand, stream []byte) []byte {
	for range 1 + random.IntN(4) {
		if len(stream) == 0 {
			break
		}
		at := random.IntN(len(stream))
		to := min(at+1+random.IntN(12), len(stream))
		switch random.IntN(6) {
		case 0:
			stream[at] = byte(random.IntN(256))
		case 1:
			stream = append(stream[:at:at], stream[to:]...)
		case 2:
			stream = append(stream[:to:to], stream[at:]...)
		case 3: // where a line begins
			if next := bytes.Index(stream[at:], []byte("\r\n")); next >= 0 {
				at += next + 2
			}
			fallthrough
		default:
			trick := tricks[random.IntN(len(tricks))]
			stream = append(append(append([]byte{}, stream[:at]...), trick...), stream[at:]...)
		}
	}
	return stream
}

func TestWhatAHundredThousandStreamsSayNetHTTPUnderstandsAlike(t *testing.T) {
	count := 100_000
	if testing.Short() {
		count = 5000
	}
	random := rand.New(rand.NewPCG(37, 1))
	whole, partly, none := 0, 0, 0
	for range count {
		stream := mutate(random, []byte(streams[random.IntN(len(streams))]))
		switch seen, calls := checkStream(t, stream, 1+random.IntN(40)); {
		case seen == 0:
			none++
		case calls == seen:
			whole++
		default:
			partly++
		}
	}
	t.Logf("streams: %d in which every request that began was whole, %d in which one was not, %d without any", whole, partly, none)
	if whole < count/10 || none < count/10 || partly == 0 {
		t.Error("the changes are too gentle or too hard to say anything")
	}
}

// FuzzStream is the same for any bytes.
func FuzzStream(f *testing.F) {
	for _, stream := range streams {
		f.Add([]byte(stream), uint8(7))
		for i := 0; i < len(tricks); i += 9 {
			f.Add([]byte(strings.Replace(stream, "Host: x\r\n", "Host: x\r\n"+tricks[i], 1)), uint8(3))
		}
	}
	f.Fuzz(func(t *testing.T, stream []byte, size uint8) { checkStream(t, stream, int(size)+1) })
}

// TestNoRequestIsSmuggled: each of these was, or is, read differently by two servers in a row.
func TestNoRequestIsSmuggled(t *testing.T) {
	const host, hidden = "Host: x\r\n", "GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
	for name, stream := range map[string]string{
		"CL.TE":                     "POST / HTTP/1.1\r\n" + host + "Content-Length: 39\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
		"TE.CL":                     "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n22\r\n" + hidden + "\r\n0\r\n\r\n",
		"TE.TE, one obfuscated":     "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n" + hidden,
		"TE with a vertical tab":    "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + hidden,
		"TE with the Kelvin sign":   "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chun\u212aed\r\n\r\n0\r\n\r\n" + hidden,
		"TE after a bare LF":        "POST / HTTP/1.1\r\n" + host + "X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
		"TE with space before":      "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + hidden,
		"TE on a folded line":       "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + hidden,
		"TE in HTTP/1.0":            "POST / HTTP/1.0\r\n" + host + "Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
		"CL.CL":                     "POST / HTTP/1.1\r\n" + host + "Content-Length: 0\r\nContent-Length: 34\r\n\r\n" + hidden,
		"CL in a list":              "POST / HTTP/1.1\r\n" + host + "Content-Length: 0, 34\r\n\r\n" + hidden,
		"CL with a sign":            "POST / HTTP/1.1\r\n" + host + "Content-Length: +0\r\n\r\n" + hidden,
		"CL with NUL":               "POST / HTTP/1.1\r\n" + host + "Content-Length: 0\x00\r\n\r\n" + hidden,
		"the whole with bare LF":    "GET / HTTP/1.1\nHost: x\n\n" + hidden,
		"the head ends in LF CR LF": "GET / HTTP/1.1\r\n" + host + "A: b\n\r\n" + hidden,
		"the first line is empty":   "\r\nGET / HTTP/1.1\r\n" + host + "\r\n" + hidden,
		"HTTP/0.9":                  "GET /\r\n" + hidden,
		"a space more in the line":  "GET / HTTP/1.1 \r\n" + host + "\r\n" + hidden,
		"a tab in the line":         "GET\t/ HTTP/1.1\r\n" + host + "\r\n" + hidden,
	} {
		t.Run(name, func(t *testing.T) {
			if _, answers, calls := ours([]byte(stream), len(stream)); calls > 0 || !bytes.HasPrefix(answers, []byte("HTTP/1.1 400 ")) &&
				!bytes.HasPrefix(answers, []byte("HTTP/1.1 501 ")) {
				t.Errorf("%d handler calls, %q", calls, answers)
			}
		})
	}
	for name, chunks := range map[string]string{
		"a size too large for a word":  "10000000000000000\r\n",
		"a size with 0x":               "0x0\r\n\r\n",
		"a size with a sign":           "-0\r\n\r\n",
		"a size with space before":     " 0\r\n\r\n",
		"a size with space behind":     "0 \r\n\r\n",
		"a size line that ends in LF":  "0\n\n",
		"a bare LF in an extension":    "0;a\nb\r\n\r\n",
		"a bare CR in an extension":    "0;a\rb\r\n\r\n",
		"a chunk longer than its size": "1\r\nab\r\n0\r\n\r\n",
		"a chunk that ends in LF":      "1\r\na\n0\r\n\r\n",
		"a chunk without an end":       "1\r\na0\r\n\r\n",
		"a trailer without a colon":    "0\r\nGET /hidden HTTP/1.1\r\n\r\n",
		"a trailer with a bare CR":     "0\r\na: b\rc\r\n\r\n",
		"an endless extension":         "0;" + strings.Repeat("a", 300) + "\r\n\r\n",
		"endless trailers":             "0\r\n" + strings.Repeat("a: b\r\n", 2000) + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			stream := "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + hidden
			if requests, answers, calls := ours([]byte(stream), len(stream)); len(requests) > 0 || calls != 1 || !bytes.HasPrefix(answers, []byte("HTTP/1.1 400 ")) {
				t.Errorf("%d handler calls, %q understood, %q", calls, requests, answers)
			}
		})
	}
}
