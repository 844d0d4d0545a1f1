package link

import (
	"encoding/binary"
	"maps"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
)

// names have a code of one byte, from 1. Only ever appended to: an index is part of the protocol.
var names = [...]string{
	"accept", "accept-encoding", "accept-language", "allow", "authorization", "baggage", "cache-control", "content-encoding",
	"content-language", "content-length", "content-type", "cookie", "date", "etag", "host", "idempotency-key", "if-none-match",
	"last-modified", "location", "origin", "referer", "retry-after", "server", "server-timing", "set-cookie", "traceparent",
	"tracestate", "user-agent", "vary", "www-authenticate", "x-forwarded-for", "x-request-id",
}

var (
	canonical [len(names)]string
	codes     = map[string]byte{} // by canonical name
)

func init() {
	for i, name := range names {
		canonical[i] = textproto.CanonicalMIMEHeaderKey(name)
		codes[canonical[i]] = byte(i + 1)
	}
}

// unsaid never leaves in a response: framing is the link's own, and the rest concerns one HTTP/1.1 connection.
var unsaid = map[string]bool{
	"Connection": true, "Content-Length": true, "Keep-Alive": true, "Proxy-Connection": true, "Te": true, "Trailer": true,
	"Transfer-Encoding": true, "Upgrade": true,
}

// head is what a request (or response) says that the next one of its kind says again. Shared between requests: never written to.
type head struct {
	method, target, host string
	url                  *url.URL
	bad                  error // the target is no URL: answered 400
	fields               http.Header
}

func readHead(data []byte, request bool) (*head, error) {
	h := &head{fields: http.Header{}}
	if request {
		end := 1 + int(data[0])
		if end+2 > len(data) {
			return nil, breach(errHead, "the method is longer than its head")
		}
		h.method = string(data[1:end])
		after := end + 2 + int(binary.LittleEndian.Uint16(data[end:]))
		if after > len(data) {
			return nil, breach(errHead, "the target is longer than its head")
		}
		h.target = string(data[end+2 : after])
		if !token(h.method, false) || h.target == "" || strings.ContainsFunc(h.target, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			return nil, breach(errHead, "not a method and a target")
		}
		h.url, h.bad = url.ParseRequestURI(h.target)
		data = data[after:]
	}
	count := 0
	err := eachField(data, func(name string, value []byte) {
		count++
		if name == "Host" && request {
			h.host = string(value)
			return
		}
		h.fields[name] = append(h.fields[name], string(value))
	})
	if err == nil && count > maxFields {
		err = breach(errHead, "more than %d fields", maxFields)
	}
	return h, err
}

// with is the head's fields and those beside it, which have been checked.
func (h *head) with(extra []byte) http.Header {
	fields := maps.Clone(h.fields)
	_ = eachField(extra, func(name string, value []byte) {
		fields[name] = append(slices.Clip(fields[name]), string(value))
	})
	return fields
}

// eachField checks the fields in data and tells them one by one, with their canonical names.
func eachField(data []byte, tell func(name string, value []byte)) error {
	count := 0
	for len(data) > 0 {
		code := data[0]
		data = data[1:]
		var name string
		switch {
		case int(code) > len(names):
			return breach(errHead, "field code %d", code)
		case code > 0:
			name = canonical[code-1]
		default:
			if len(data) == 0 || 1+int(data[0]) > len(data) {
				return breach(errHead, "a field is cut off")
			}
			plain := string(data[1 : 1+int(data[0])])
			if !token(plain, true) {
				return breach(errHead, "not a field name in lower case")
			}
			name = textproto.CanonicalMIMEHeaderKey(plain)
			data = data[1+int(data[0]):]
		}
		if len(data) < 2 {
			return breach(errHead, "a field is cut off")
		}
		end := 2 + int(binary.LittleEndian.Uint16(data))
		if end > len(data) {
			return breach(errHead, "a field is cut off")
		}
		value := data[2:end]
		for _, c := range value {
			if c == 0 || c == '\r' || c == '\n' {
				return breach(errHead, "not a field value")
			}
		}
		if count++; count > maxFields {
			return breach(errHead, "more than %d fields", maxFields)
		}
		if tell != nil {
			tell(name, value)
		}
		data = data[end:]
	}
	return nil
}

// token says whether text is an RFC 9110 token, in lower case if it is a field's name.
func token(text string, lower bool) bool {
	for i := range len(text) {
		c := text[i]
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c >= 'A' && c <= 'Z' && !lower:
		case strings.IndexByte("!#$%&'*+.^_`|~-", c) >= 0:
		default:
			return false
		}
	}
	return text != ""
}

// appendField adds one field by its canonical name. What cannot be said is left out.
func appendField(out []byte, name, value string) []byte {
	if len(value) > 65535 || strings.ContainsAny(value, "\x00\r\n") {
		return out
	}
	if code := codes[name]; code > 0 {
		out = append(out, code)
	} else {
		lower := strings.ToLower(name)
		if len(lower) > 255 || !token(lower, true) {
			return out
		}
		out = append(out, 0, byte(len(lower)))
		out = append(out, lower...)
	}
	out = binary.LittleEndian.AppendUint16(out, uint16(len(value)))
	return append(out, value...)
}

// appendHead adds a response's fields, always in the same order, so that equal heads are equal bytes.
func appendHead(out []byte, fields http.Header) []byte {
	if len(fields) > 1 {
		keys := make([]string, 0, len(fields))
		for name := range fields {
			keys = append(keys, name)
		}
		slices.Sort(keys)
		for _, name := range keys {
			out = appendNamed(out, name, fields[name])
		}
		return out
	}
	for name, values := range fields {
		out = appendNamed(out, name, values)
	}
	return out
}

func appendNamed(out []byte, name string, values []string) []byte {
	if unsaid[name] {
		return out
	}
	for _, value := range values {
		out = appendField(out, name, value)
	}
	return out
}

// appendRequestHead is the client's side, for tests.
func appendRequestHead(out []byte, method, target string, fields ...string) []byte {
	out = append(out, byte(len(method)))
	out = append(out, method...)
	out = binary.LittleEndian.AppendUint16(out, uint16(len(target)))
	out = append(out, target...)
	for i := 0; i < len(fields); i += 2 {
		out = appendField(out, fields[i], fields[i+1])
	}
	return out
}
