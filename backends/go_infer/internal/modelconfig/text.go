package modelconfig

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Protobuf's text format, as far as configuration needs it: fields with scalar values, messages in {} or <>, lists in [], comments.
// Source: protobuf's text format specification. Extensions and Any ([type] as a field's name) are refused.

// node is one field: a scalar's text, or a message's fields.
type node struct {
	name     string
	line     int
	column   int
	quoted   bool // the text was a string literal
	text     string
	message  bool
	children []node
}

// reader walks over one file.
type reader struct {
	file   string
	text   string
	at     int
	line   int
	column int
	depth  int
}

const deepest = 16 // a config is four levels deep

// position is where something stands, as editors and compilers write it.
func position(file string, line, column int) string {
	return fmt.Sprintf("%s:%d:%d", file, line, column)
}

func (r *reader) fail(format string, arguments ...any) error {
	return fmt.Errorf("%s: %s", position(r.file, r.line, r.column), fmt.Sprintf(format, arguments...))
}

// parse reads the file's fields.
func parse(file, text string) ([]node, error) {
	r := &reader{file: file, text: text, line: 1, column: 1}
	nodes, err := r.fields()
	if err == nil && r.at < len(r.text) {
		err = r.fail("%q closes nothing", r.text[r.at])
	}
	return nodes, err
}

func (r *reader) step() {
	if r.text[r.at] == '\n' {
		r.line, r.column = r.line+1, 0
	}
	r.at++
	r.column++
}

// skip passes white space and comments, and says what comes next; 0 at the end.
func (r *reader) skip() byte {
	for r.at < len(r.text) {
		switch c := r.text[r.at]; {
		case c == '#':
			for r.at < len(r.text) && r.text[r.at] != '\n' {
				r.step()
			}
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			r.step()
		default:
			return c
		}
	}
	return 0
}

func word(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// fields reads up to a closing bracket or the end; who opened the bracket checks it.
func (r *reader) fields() ([]node, error) {
	var nodes []node
	for {
		c := r.skip()
		if c == 0 || c == '}' || c == '>' {
			return nodes, nil
		}
		if c == ',' || c == ';' {
			r.step()
			continue
		}
		field := node{line: r.line, column: r.column}
		start := r.at
		for r.at < len(r.text) && word(r.text[r.at]) {
			r.step()
		}
		if field.name = r.text[start:r.at]; field.name == "" {
			whole, _ := utf8.DecodeRuneInString(r.text[start:])
			return nil, r.fail("a field's name is expected, not %q", whole)
		}
		var err error
		if nodes, err = r.values(nodes, field); err != nil {
			return nil, err
		}
	}
}

// values reads what follows a field's name: one value, or a list of them.
func (r *reader) values(nodes []node, field node) ([]node, error) {
	c := r.skip()
	colon := c == ':'
	if colon {
		r.step()
		c = r.skip()
	}
	if c != '[' {
		value, err := r.value(field, colon)
		return append(nodes, value), err
	}
	r.step()
	for first := true; ; first = false {
		c = r.skip()
		if c == ']' {
			r.step()
			return nodes, nil
		}
		if !first {
			if c != ',' {
				return nil, r.fail("',' or ']' is expected in the list of %s", field.name)
			}
			r.step()
			r.skip()
		}
		value, err := r.value(field, true)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, value)
	}
}

var closers = map[byte]byte{'{': '}', '<': '>'}

func (r *reader) value(field node, colon bool) (node, error) {
	c := r.skip()
	closer, message := closers[c]
	switch {
	case c == 0:
		return field, r.fail("the file ends where the value of %s is expected", field.name)
	case message:
		return r.message(field, closer)
	case !colon:
		return field, r.fail("':' or '{' is expected after %s, not %q", field.name, c)
	case c == '"' || c == '\'':
		return r.literal(field)
	}
	start := r.at
	for r.at < len(r.text) && (word(r.text[r.at]) || strings.IndexByte("+-.", r.text[r.at]) >= 0) {
		r.step()
	}
	if field.text = r.text[start:r.at]; field.text == "" {
		return field, r.fail("a value of %s is expected, not %q", field.name, c)
	}
	return field, nil
}

func (r *reader) message(field node, closer byte) (node, error) {
	if r.depth++; r.depth > deepest {
		return field, r.fail("messages are nested deeper than %d", deepest)
	}
	defer func() { r.depth-- }()
	r.step()
	field.message = true
	var err error
	if field.children, err = r.fields(); err != nil {
		return field, err
	}
	if r.skip() != closer {
		return field, r.fail("%s, opened at %d:%d, is not closed with %q", field.name, field.line, field.column, closer)
	}
	r.step()
	return field, nil
}

// literal reads one or more adjacent string literals.
func (r *reader) literal(field node) (node, error) {
	field.quoted = true
	for {
		quote := r.skip()
		if quote != '"' && quote != '\'' {
			return field, nil
		}
		start := r.at
		r.step()
		for r.at < len(r.text) && r.text[r.at] != quote && r.text[r.at] != '\n' {
			if r.text[r.at] == '\\' && r.at+1 < len(r.text) {
				r.step()
			}
			r.step()
		}
		if r.at >= len(r.text) || r.text[r.at] != quote {
			return field, r.fail("the string of %s, begun at %d:%d, is not closed on its line", field.name, field.line, field.column)
		}
		r.step()
		text, err := unquote(r.text[start+1 : r.at-1])
		if err != nil {
			return field, r.fail("the string of %s: %v", field.name, err)
		}
		field.text += text
	}
}

// unquote resolves the escapes that the text format shares with C.
func unquote(raw string) (string, error) {
	if !strings.Contains(raw, `\`) {
		return raw, nil
	}
	var out strings.Builder
	for len(raw) > 0 {
		if raw[0] == '\\' && len(raw) > 1 && raw[1] == '?' {
			out.WriteByte('?')
			raw = raw[2:]
			continue
		}
		quote := byte(0)
		if raw[0] == '\\' && len(raw) > 1 && (raw[1] == '"' || raw[1] == '\'') {
			quote = raw[1]
		}
		r, wide, rest, err := strconv.UnquoteChar(raw, quote)
		if err != nil {
			return "", fmt.Errorf("%.6q is no escape", raw)
		}
		if wide {
			out.WriteRune(r)
		} else {
			out.WriteByte(byte(r))
		}
		raw = rest
	}
	return out.String(), nil
}
