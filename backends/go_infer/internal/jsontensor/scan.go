// Package jsontensor moves tensors between JSON text and aligned memory, with no Go value in between.
//
// Reading is two passes over the bytes. Scan checks the whole document's grammar once and notes where the members of the top object
// lie; Fill then walks a value it knows to be well formed and writes numbers straight into a tensor's memory.
// Grammar: RFC 8259, plus bare NaN, Infinity and -Infinity, which TF-Serving accepts and emits.
// The texts of refusals are TF-Serving's (RapidJSON's) where it has one.
package jsontensor

import (
	"bytes"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"sluicegate/go_infer/internal/status"
)

// maxDepth bounds nesting, and with it the recursion of a hostile document.
const maxDepth = 64

// Span is a value's place in a document: bytes [Start, End).
type Span struct{ Start, End int }

// Found says whether the member was there at all.
func (s Span) Found() bool { return s.End > 0 }

// Document is a scanned request.
type Document struct {
	Body      []byte
	Signature Span // "signature_name"
	Instances Span
	Inputs    Span
	Examples  Span // of classify and regress, as is the next
	Context   Span
	Image     Span // of the simple API: {"image": {"b64": ...}}

	rows int // elements of Instances, if that is a list
}

// Scan checks the grammar of body and finds its members. Of a repeated member the first counts, as in RapidJSON.
func Scan(body []byte) (Document, error) {
	d := Document{Body: body}
	c := cursor{text: body}
	c.space()
	if c.at >= len(body) {
		return d, status.Errorf(status.InvalidArgument, "JSON Parse error: The document is empty")
	}
	if body[c.at] != '{' {
		if err := c.value(0); err != nil {
			return d, err
		}
		return d, status.Errorf(status.InvalidArgument, "JSON Value: %s Is not object", Quote(body))
	}
	err := c.members(0, func(key, value Span) error {
		if slot := d.slot(body[key.Start:key.End]); slot != nil && !slot.Found() {
			*slot = value
			if slot == &d.Instances {
				d.rows = c.listed
			}
		}
		return nil
	})
	if err != nil {
		return d, err
	}
	c.space()
	if c.at < len(body) {
		return d, c.fail("The document root must not be followed by other values.")
	}
	return d, nil
}

// slot is where the place of the member with this key, which has its quotes, is noted; nil if nobody asks for it.
func (d *Document) slot(key []byte) *Span {
	if bytes.IndexByte(key, '\\') >= 0 {
		key = []byte(strconv.Quote(unquote(key)))
	}
	switch string(key) {
	case `"signature_name"`:
		return &d.Signature
	case `"instances"`:
		return &d.Instances
	case `"inputs"`:
		return &d.Inputs
	case `"examples"`:
		return &d.Examples
	case `"context"`:
		return &d.Context
	case `"image"`:
		return &d.Image
	}
	return nil
}

// SignatureName is the request's signature_name, empty if it has none.
func (d *Document) SignatureName() (string, error) {
	if !d.Signature.Found() {
		return "", nil
	}
	text, ok := Text(d.Body, d.Signature)
	if !ok {
		return "", status.Errorf(status.InvalidArgument,
			"JSON Value: %s not formatted correctly. 'signature_name' key must be a string value.", Quote(d.Body))
	}
	return text, nil
}

// Text decodes a JSON string; false if the value is something else.
func Text(body []byte, span Span) (string, bool) {
	raw := body[span.Start:span.End]
	if raw[0] != '"' {
		return "", false
	}
	return unquote(raw), true
}

// quoteLimit is how much of a client's own body an error gives back to it.
const quoteLimit = 256

// Quote shortens a piece of the request for an error text.
func Quote(piece []byte) string {
	if len(piece) <= quoteLimit {
		return string(piece)
	}
	cut := quoteLimit
	for cut > 0 && !utf8.RuneStart(piece[cut]) {
		cut--
	}
	return string(piece[:cut]) + "..."
}

// cursor is a position in a document whose grammar is being checked.
type cursor struct {
	text   []byte
	at     int
	listed int // elements of the list that was checked last
}

func (c *cursor) fail(reason string) error {
	return status.Errorf(status.InvalidArgument, "JSON Parse error: %s at offset: %d", reason, c.at)
}

func (c *cursor) space() {
	for c.at < len(c.text) {
		switch c.text[c.at] {
		case ' ', '\n', '\t', '\r':
			c.at++
		default:
			return
		}
	}
}

// is consumes one byte if it is the next.
func (c *cursor) is(b byte) bool {
	if c.at < len(c.text) && c.text[c.at] == b {
		c.at++
		return true
	}
	return false
}

// word consumes text if it is next.
func (c *cursor) word(text string) bool {
	if len(c.text)-c.at >= len(text) && string(c.text[c.at:c.at+len(text)]) == text {
		c.at += len(text)
		return true
	}
	return false
}

// value checks one value of any kind.
func (c *cursor) value(depth int) error {
	if depth > maxDepth {
		return c.fail("Nested deeper than " + strconv.Itoa(maxDepth) + " levels.")
	}
	if c.at >= len(c.text) {
		return c.fail("Invalid value.")
	}
	switch b := c.text[c.at]; {
	case b == '[':
		return c.elements(depth)
	case b == '{':
		return c.members(depth, nil)
	case b == '"':
		return c.str()
	case b == '-' || b-'0' <= 9 || b == 'N' || b == 'I':
		return c.number()
	case c.word("true"), c.word("false"), c.word("null"):
		return nil
	}
	return c.fail("Invalid value.")
}

func (c *cursor) elements(depth int) error {
	c.at++
	c.space()
	if c.is(']') {
		c.listed = 0
		return nil
	}
	for n := 1; ; n++ {
		if end := c.plain(); end > 0 {
			c.at = end
		} else if err := c.value(depth + 1); err != nil {
			return err
		}
		c.space()
		if c.is(',') {
			c.space()
			continue
		}
		if c.is(']') {
			c.listed = n
			return nil
		}
		return c.fail("Missing a comma or ] after an array element.")
	}
}

// plain is the position after the number that is next, 0 if there is none or it is an unusual one: one with an exponent, or a wrong
// one. Most of a large request is what this function reads.
func (c *cursor) plain() int {
	text, at := c.text, c.at
	if at < len(text) && text[at] == '-' {
		at++
	}
	start := at
	for at < len(text) && text[at]-'0' <= 9 {
		at++
	}
	if at == start || text[start] == '0' && at > start+1 {
		return 0
	}
	if at < len(text) && text[at] == '.' {
		at++
		point := at
		for at < len(text) && text[at]-'0' <= 9 {
			at++
		}
		if at == point {
			return 0
		}
	}
	if at < len(text) && text[at]|0x20 == 'e' {
		return 0
	}
	return at
}

// members checks an object; visit, if there is one, is told where each key (with its quotes) and value lie.
func (c *cursor) members(depth int, visit func(key, value Span) error) error {
	c.at++
	c.space()
	if c.is('}') {
		return nil
	}
	for {
		key := Span{Start: c.at}
		if c.at >= len(c.text) || c.text[c.at] != '"' {
			return c.fail("Missing a name for object member.")
		}
		if err := c.str(); err != nil {
			return err
		}
		key.End = c.at
		c.space()
		if !c.is(':') {
			return c.fail("Missing a colon after a name of object member.")
		}
		c.space()
		value := Span{Start: c.at}
		if err := c.value(depth + 1); err != nil {
			return err
		}
		value.End = c.at
		if visit != nil {
			if err := visit(key, value); err != nil {
				return err
			}
		}
		c.space()
		if c.is(',') {
			c.space()
			continue
		}
		if c.is('}') {
			return nil
		}
		return c.fail("Missing a comma or } after an object member.")
	}
}

func (c *cursor) str() error {
	c.at++
	for c.at < len(c.text) {
		switch b := c.text[c.at]; {
		case b == '"':
			c.at++
			return nil
		case b == '\\':
			if err := c.escape(); err != nil {
				return err
			}
		case b < 0x20:
			return c.fail("Invalid encoding in string.")
		case b < utf8.RuneSelf:
			c.at++
		default:
			_, size := utf8.DecodeRune(c.text[c.at:])
			if size == 1 {
				return c.fail("Invalid encoding in string.")
			}
			c.at += size
		}
	}
	return c.fail("Missing a closing quotation mark in string.")
}

func (c *cursor) escape() error {
	c.at++
	if c.at >= len(c.text) {
		return c.fail("Missing a closing quotation mark in string.")
	}
	switch c.text[c.at] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		c.at++
		return nil
	case 'u':
		for i := 1; i <= 4; i++ {
			if c.at+i >= len(c.text) || !hex(c.text[c.at+i]) {
				return c.fail("Incorrect hex digit after \\u escape in string.")
			}
		}
		c.at += 5
		return c.surrogate()
	}
	return c.fail("Invalid escape character in string.")
}

// surrogate checks that a \u escape, which ends here, is half of a pair only if its other half follows.
func (c *cursor) surrogate() error {
	r := rune(unit(c.text[c.at-4:]))
	if !utf16.IsSurrogate(r) {
		return nil
	}
	rest := c.text[c.at:]
	if r < 0xdc00 && len(rest) >= 6 && rest[0] == '\\' && rest[1] == 'u' && hex(rest[2]) && hex(rest[3]) && hex(rest[4]) && hex(rest[5]) {
		if low := unit(rest[2:]); low >= 0xdc00 && low < 0xe000 {
			c.at += 6
			return nil
		}
	}
	return c.fail("The surrogate pair in string is invalid.")
}

func hex(b byte) bool { return b-'0' <= 9 || b|0x20 >= 'a' && b|0x20 <= 'f' }

func (c *cursor) digits() int {
	start := c.at
	for c.at < len(c.text) && c.text[c.at]-'0' <= 9 {
		c.at++
	}
	return c.at - start
}

func (c *cursor) number() error {
	c.is('-')
	if c.word("Infinity") || c.word("Inf") || c.word("NaN") {
		return nil
	}
	if !c.is('0') && c.digits() == 0 {
		return c.fail("Invalid value.")
	}
	if c.is('.') && c.digits() == 0 {
		return c.fail("Miss fraction part in number.")
	}
	if c.at < len(c.text) && c.text[c.at]|0x20 == 'e' {
		c.at++
		if !c.is('+') {
			c.is('-')
		}
		if c.digits() == 0 {
			return c.fail("Miss exponent in number.")
		}
	}
	return nil
}
