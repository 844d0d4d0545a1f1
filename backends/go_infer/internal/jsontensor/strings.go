package jsontensor

import (
	"bytes"
	"encoding/base64"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/tensor"
)

// A string element is "text", which becomes its UTF-8, or {"b64": "..."}, which becomes any bytes.

// arena collects the strings of one request in one piece of memory. What is decoded is never longer than its JSON, so that an arena
// with room for the body never grows.
type arena struct{ memory []byte }

func (a *arena) since(start int) []byte { return a.memory[start:len(a.memory):len(a.memory)] }

// element decodes the string element at position at. Its bytes are the arena's.
func (a *arena) element(text []byte, at int) (element []byte, end int, err error) {
	start := len(a.memory)
	switch text[at] {
	case '"':
		end = skipString(text, at)
		a.memory = appendText(a.memory, text[at+1:end-1])
		return a.since(start), end, nil
	case '{':
		end = skip(text, at)
		encoded, ok := base64Of(text, at)
		if !ok {
			return nil, at, status.Errorf(status.InvalidArgument, "JSON Value: %s not formatted correctly for base64 data", Quote(text[at:end]))
		}
		if a.memory, ok = appendBase64(a.memory, encoded); !ok {
			return nil, at, status.Errorf(status.InvalidArgument, "Unable to base64 decode")
		}
		return a.since(start), end, nil
	}
	return nil, at, typeError(text, at, tensor.String)
}

// row is floats for strings.
func (a *arena) row(text []byte, at int, row [][]byte) (n, end int, err error) {
	at, more := first(text, at)
	for more {
		element, after, err := a.element(text, at)
		if err != nil {
			return n, at, err
		}
		if n < len(row) {
			row[n] = element
		}
		n++
		at, more = step(text, after)
	}
	return n, at, nil
}

// appendBase64 decodes what stands between the quotes of a string: the standard alphabet, with padding or without (as Abseil's
// Base64Unescape, which TF-Serving uses, takes it).
func appendBase64(to, inner []byte) ([]byte, bool) {
	if bytes.IndexByte(inner, '\\') >= 0 { // "\/" is how some write a slash
		inner = appendText(nil, inner)
	}
	start := len(to)
	encoding := base64.StdEncoding
	if len(inner)%4 != 0 {
		encoding = base64.RawStdEncoding
	}
	decoded, err := encoding.AppendDecode(to, inner)
	if err != nil {
		return to[:start], false
	}
	return decoded, true
}

// appendText decodes what stands between the quotes of a string whose grammar is known to be right.
func appendText(to, inner []byte) []byte {
	for {
		escape := bytes.IndexByte(inner, '\\')
		if escape < 0 {
			return append(to, inner...)
		}
		to = append(to, inner[:escape]...)
		letter := inner[escape+1]
		inner = inner[escape+2:]
		if letter != 'u' {
			to = append(to, unescaped[letter])
			continue
		}
		r := rune(unit(inner))
		inner = inner[4:]
		if utf16.IsSurrogate(r) && len(inner) >= 6 && inner[0] == '\\' && inner[1] == 'u' {
			r = utf16.DecodeRune(r, rune(unit(inner[2:])))
			inner = inner[6:]
		}
		to = utf8.AppendRune(to, r)
	}
}

// unescaped are the characters that one-letter escapes stand for.
var unescaped = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// unit is the UTF-16 code unit that four hex digits stand for.
func unit(text []byte) uint64 {
	value, _ := strconv.ParseUint(view(text[:4]), 16, 16) // Scan has checked the digits
	return value
}

// unquote decodes a JSON string with its quotes.
func unquote(raw []byte) string { return string(appendText(nil, raw[1:len(raw)-1])) }
