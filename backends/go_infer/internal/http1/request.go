package http1

import (
	"bytes"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
)

// head is a request's line and fields, parsed. A connection keeps the last one: most clients say the same again, or the same but for the
// length of the body, and then comparing the bytes is all there is to do. Only the length is changed after that.
type head struct {
	raw     string // with the empty line
	from    int    // where the digits of Content-Length are in raw, so that another length may be there; 0: none may
	to      int
	lengths []string // the field
	method  string
	target  string
	url     url.URL
	minor   int
	host    string
	fields  http.Header
	length  int64 // -1: chunked
	keep    bool
	expects bool // 100-continue
}

// problem is why a request is refused: the status, and a text for whoever debugs the client.
type problem struct {
	code int
	text string
}

func (p *problem) Error() string { return p.text }

func bad(text string) *problem { return &problem{http.StatusBadRequest, text} }

var emptyLine = []byte("\r\n\r\n")

// headEnd is where the head ends that data begins with, 0 if the end has not come; seen bytes were looked at before.
func headEnd(data []byte, seen int) int {
	from := max(seen-len(emptyLine)+1, 0)
	if at := bytes.Index(data[from:], emptyLine); at >= 0 {
		return from + at + len(emptyLine)
	}
	return 0
}

// parse reads a head. Everything of RFC 9112 that two readers could understand differently is refused: bare CR and LF, folded lines,
// space around names, lengths said twice, a length beside a coding, codings but chunked.
func parse(data []byte, maxFields int) (*head, *problem) {
	h := &head{raw: string(data), fields: http.Header{}}
	line, rest, _ := strings.Cut(h.raw, "\r\n")
	if p := h.requestLine(line); p != nil {
		return nil, p
	}
	for count := 0; rest != "\r\n"; count++ {
		if line, rest, _ = strings.Cut(rest, "\r\n"); count == maxFields {
			return nil, &problem{http.StatusRequestHeaderFieldsTooLarge, "more than " + strconv.Itoa(maxFields) + " fields"}
		}
		name, value, found := strings.Cut(line, ":")
		if !found || !isToken(name) {
			return nil, bad("a field is malformed")
		}
		value = strings.Trim(value, " \t")
		if controls(value) {
			return nil, bad("a control character in a field")
		}
		name = textproto.CanonicalMIMEHeaderKey(name)
		h.fields[name] = append(h.fields[name], value)
		if name == "Content-Length" && value != "" {
			h.from = len(h.raw) - len(rest) - len("\r\n") - len(line) + strings.LastIndex(line, value)
			h.to = h.from + len(value)
		}
	}
	for _, step := range []func() *problem{h.hostField, h.framing, h.connection} {
		if p := step(); p != nil {
			return nil, p
		}
	}
	return h, nil
}

func (h *head) requestLine(line string) *problem {
	method, rest, _ := strings.Cut(line, " ")
	target, version, found := strings.Cut(rest, " ")
	if !found || !isToken(method) || target == "" {
		return bad("the request line is malformed")
	}
	switch version {
	case "HTTP/1.1":
		h.minor = 1
	case "HTTP/1.0":
	default:
		if len(version) == len("HTTP/1.1") && strings.HasPrefix(version, "HTTP/") {
			return &problem{http.StatusHTTPVersionNotSupported, "HTTP/1.1 and HTTP/1.0 are spoken here"}
		}
		return bad("the request line is malformed")
	}
	for i := range len(target) {
		if target[i] <= ' ' || target[i] >= 0x7f {
			return bad("a character in the target that must be escaped")
		}
	}
	if method == http.MethodConnect {
		return &problem{http.StatusNotImplemented, "this is no proxy"}
	}
	parsed, err := url.ParseRequestURI(target)
	if err != nil {
		return bad("the target is not a URL")
	}
	h.method, h.target, h.url = method, target, *parsed
	return nil
}

func (h *head) hostField() *problem {
	hosts := h.fields["Host"]
	if len(hosts) > 1 || len(hosts) == 0 && h.minor > 0 {
		return bad("exactly one Host is required")
	}
	if len(hosts) == 1 {
		h.host = hosts[0]
		for i := range len(h.host) {
			if c := h.host[i]; !alphanumeric(c) && strings.IndexByte("-._~%:[]!$&'()*+,;=", c) < 0 {
				return bad("Host is malformed")
			}
		}
		delete(h.fields, "Host")
	}
	if h.url.Host != "" { // absolute form
		h.host = h.url.Host
	}
	return nil
}

func (h *head) framing() *problem {
	lengths, codings := h.fields["Content-Length"], h.fields["Transfer-Encoding"]
	switch {
	case codings != nil && (lengths != nil || h.minor == 0):
		return bad("Transfer-Encoding beside Content-Length, or in HTTP/1.0")
	case codings != nil:
		if len(codings) > 1 || !sameToken(codings[0], "chunked") {
			return &problem{http.StatusNotImplemented, "no Transfer-Encoding but chunked is known"}
		}
		for _, name := range []string{"content-length", "transfer-encoding", "trailer"} {
			if listed(h.fields["Trailer"], name) {
				return bad("a trailer that would change the framing is announced")
			}
		}
		h.length = -1
		delete(h.fields, "Transfer-Encoding")
		delete(h.fields, "Trailer") // trailers are read and not shown
	case len(lengths) > 1:
		return bad("Content-Length twice")
	case len(lengths) == 1:
		length, err := strconv.ParseUint(lengths[0], 10, 63)
		if err != nil {
			return bad("Content-Length is not a number")
		}
		h.length = int64(length)
		h.lengths = lengths
	}
	if expect := h.fields["Expect"]; expect != nil && h.minor > 0 {
		if len(expect) > 1 || !sameToken(expect[0], "100-continue") {
			return &problem{http.StatusExpectationFailed, "nothing can be expected but 100-continue"}
		}
		h.expects = h.length != 0
	}
	if h.lengths == nil || h.fields["Expect"] != nil { // what is expected of a body without bytes is nothing
		h.from, h.to = 0, 0
	}
	return nil
}

// again is the size of the head that data begins with, if that is this one, perhaps with another length, which becomes this one's; 0 if it
// is another, or longer than that.
func (h *head) again(data []byte, longest int) int {
	if h.raw == "" || len(data) < h.from || string(data[:h.from]) != h.raw[:h.from] {
		return 0
	}
	to := h.from
	for h.from > 0 && to < len(data) && data[to]-'0' <= 9 {
		to++
	}
	digits, rest := data[h.from:to], h.raw[h.to:]
	size := to + len(rest)
	if size > longest || len(data) < size || string(data[to:size]) != rest {
		return 0
	}
	if h.from == 0 || string(digits) == h.lengths[0] {
		return size
	}
	if len(digits) == 0 || len(digits) > maxDigits {
		return 0
	}
	h.length = 0
	for _, digit := range digits {
		h.length = 10*h.length + int64(digit-'0')
	}
	h.lengths[0] = string(digits)
	return size
}

// maxDigits are those of a number that is certain to be an int64.
const maxDigits = 18

func (h *head) connection() *problem {
	h.keep = h.minor > 0 || listed(h.fields["Connection"], "keep-alive")
	if listed(h.fields["Connection"], "close") {
		h.keep = false
	}
	return nil
}

// listed says whether a token is in a field that is a list.
func listed(values []string, token string) bool {
	for _, value := range values {
		for each := range strings.SplitSeq(value, ",") {
			if sameToken(strings.Trim(each, " \t"), token) {
				return true
			}
		}
	}
	return false
}

// sameToken compares without case, and ASCII only: strings.EqualFold takes the Kelvin sign for a k, and no other reader would.
func sameToken(text, lower string) bool {
	if len(text) != len(lower) {
		return false
	}
	for i := range len(text) {
		c := text[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// controls says whether there is a control character but the tabulator.
func controls[T string | []byte](text T) bool {
	for i := range len(text) {
		if c := text[i]; c < ' ' && c != '\t' || c == 0x7f {
			return true
		}
	}
	return false
}

func alphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// isToken is RFC 9110's 5.6.2.
func isToken(text string) bool {
	for i := range len(text) {
		if c := text[i]; !alphanumeric(c) && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return text != ""
}
