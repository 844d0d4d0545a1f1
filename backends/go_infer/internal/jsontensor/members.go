package jsontensor

import (
	"strconv"

	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/tensor"
)

// The functions of this file are for protocols whose documents have other members than TF-Serving's: check once with Object, then walk
// with Pick, Pairs and Elements. None of them allocates.

// Object checks the grammar of the whole body, which must be one object, and notes in found where its members named in keys lie.
// Of a repeated member the first counts. Keys are compared as they are written: one spelled with escapes is another key.
func Object(body []byte, keys []string, found []Span) error {
	clear(found)
	c := cursor{text: body}
	c.space()
	if c.at >= len(body) {
		return status.Errorf(status.InvalidArgument, "JSON Parse error: The document is empty")
	}
	if body[c.at] != '{' {
		if err := c.value(0); err != nil {
			return err
		}
		return status.Errorf(status.InvalidArgument, "JSON Value: %s Is not object", Quote(body))
	}
	err := c.members(0, func(key, value Span) error {
		note(body, key, value, keys, found)
		return nil
	})
	if err != nil {
		return err
	}
	c.space()
	if c.at < len(body) {
		return c.fail("The document root must not be followed by other values.")
	}
	return nil
}

func note(body []byte, key, value Span, keys []string, found []Span) {
	for i, name := range keys {
		if string(body[key.Start+1:key.End-1]) == name {
			if !found[i].Found() {
				found[i] = value
			}
			return
		}
	}
}

// Pick is Object for a value inside a document that was checked; false if the value is not an object.
func Pick(body []byte, span Span, keys []string, found []Span) bool {
	clear(found)
	walk, ok := Pairs(body, span)
	if !ok {
		return false
	}
	for key, value, more := walk.Next(); more; key, value, more = walk.Next() {
		note(body, key, value, keys, found)
	}
	return true
}

// Members walks an object of a document that was checked.
type Members struct {
	text []byte
	at   int
	more bool
}

// Pairs begins a walk over the object at span; false if the value is something else.
func Pairs(body []byte, span Span) (Members, bool) {
	if body[span.Start] != '{' {
		return Members{}, false
	}
	at := skipSpace(body, span.Start+1)
	return Members{body, at, body[at] != '}'}, true
}

// Next is the next key, with its quotes, and its value; false at the end.
func (m *Members) Next() (key, value Span, more bool) {
	if !m.more {
		return key, value, false
	}
	key = Span{m.at, skipString(m.text, m.at)}
	at := skipSpace(m.text, skipSpace(m.text, key.End)+1)
	value = Span{at, skip(m.text, at)}
	m.at, m.more = next(m.text, value.End)
	return key, value, true
}

// List walks a list of a document that was checked.
type List struct {
	text []byte
	at   int
	more bool
}

// Elements begins a walk over the list at span; false if the value is something else.
func Elements(body []byte, span Span) (List, bool) {
	if body[span.Start] != '[' {
		return List{}, false
	}
	at, more := first(body, span.Start)
	return List{body, at, more}, true
}

// Next is the next element; false at the end.
func (l *List) Next() (Span, bool) {
	if !l.more {
		return Span{}, false
	}
	element := Span{l.at, skip(l.text, l.at)}
	l.at, l.more = next(l.text, element.End)
	return element, true
}

// Whole reads a whole number; false if the value is something else or out of range.
func Whole(body []byte, span Span) (int64, bool) {
	value, err := strconv.ParseInt(string(body[span.Start:span.End]), 10, 64)
	return value, err == nil
}

// Truth reads true or false; the second result is false if the value is something else.
func Truth(body []byte, span Span) (value, ok bool) {
	switch body[span.Start] {
	case 't':
		return true, true
	case 'f':
		return false, true
	}
	return false, false
}

// AppendElements writes elements [from, to) of a tensor, separated by commas.
func AppendElements(text []byte, value *tensor.Value, from, to int) []byte {
	for i := from; i < to; i++ {
		if i > from {
			text = append(text, ',')
		}
		text = appendElement(text, value, i)
	}
	return text
}
