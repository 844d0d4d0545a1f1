package jsontensor

// The functions of this file walk values whose grammar Scan has checked; they only have to find their ends.

// skip returns the position after the value at position at.
func skip(text []byte, at int) int {
	switch text[at] {
	case '"':
		return skipString(text, at)
	case '[', '{':
		depth := 0
		for {
			switch text[at] {
			case '"':
				at = skipString(text, at)
				continue
			case '[', '{':
				depth++
			case ']', '}':
				depth--
				if depth == 0 {
					return at + 1
				}
			}
			at++
		}
	}
	for at < len(text) {
		switch text[at] {
		case ',', ']', '}', ' ', '\n', '\t', '\r':
			return at
		}
		at++
	}
	return at
}

func skipString(text []byte, at int) int {
	for at++; text[at] != '"'; at++ {
		if text[at] == '\\' {
			at++
		}
	}
	return at + 1
}

func skipSpace(text []byte, at int) int {
	for at < len(text) && (text[at] == ' ' || text[at] == '\n' || text[at] == '\t' || text[at] == '\r') {
		at++
	}
	return at
}

// first returns where the first element of the list at position at begins, and false if the list is empty.
func first(text []byte, at int) (int, bool) {
	at = skipSpace(text, at+1)
	return at, text[at] != ']'
}

// next goes from the end of an element to the beginning of the next; false at the list's (or object's) end, then at is after it.
func next(text []byte, at int) (int, bool) {
	at = skipSpace(text, at)
	if text[at] == ',' {
		return skipSpace(text, at+1), true
	}
	return at + 1, false
}

// step is next, quick where no space or one space follows a comma, as encoders write it. (A comma is never the last byte but two.)
func step(text []byte, at int) (int, bool) {
	if text[at] == ',' {
		if text[at+1] > ' ' {
			return at + 1, true
		}
		if text[at+2] > ' ' {
			return at + 2, true
		}
	}
	return next(text, at)
}

// count is the number of elements of the list at position at.
func count(text []byte, at int) int {
	n := 0
	at, more := first(text, at)
	for more {
		n++
		at, more = next(text, skip(text, at))
	}
	return n
}

// each calls visit with every key (decoded) and value of the object at position at, until it returns false.
func each(text []byte, at int, visit func(key string, value Span) bool) {
	at = skipSpace(text, at+1)
	for more := text[at] != '}'; more; {
		end := skipString(text, at)
		key := unquote(text[at:end])
		at = skipSpace(text, skipSpace(text, end)+1)
		value := Span{at, skip(text, at)}
		if !visit(key, value) {
			return
		}
		at, more = next(text, value.End)
	}
}

// Member finds a member of the object at span.
func Member(body []byte, span Span, name string) (found Span) {
	if body[span.Start] != '{' {
		return found
	}
	each(body, span.Start, func(key string, value Span) bool {
		if key == name {
			found = value
		}
		return !found.Found()
	})
	return found
}

// isBase64 tells {"b64": "..."}: the only object that is a value and not a set of named tensors.
func isBase64(text []byte, at int) bool {
	_, ok := base64Of(text, at)
	return ok
}

// base64Of is what stands between the quotes of the only member of {"b64": "..."}; false if the object at position at is another.
func base64Of(text []byte, at int) (encoded []byte, ok bool) {
	members := 0
	each(text, at, func(key string, value Span) bool {
		members++
		if ok = key == "b64" && text[value.Start] == '"'; ok {
			encoded = text[value.Start+1 : value.End-1]
		}
		return members < 2
	})
	return encoded, ok && members == 1
}

// kind names a value's type as RapidJSON does.
func kind(text []byte, at int) string {
	switch text[at] {
	case '[':
		return "Array"
	case '{':
		return "Object"
	case '"':
		return "String"
	case 't':
		return "True"
	case 'f':
		return "False"
	case 'n':
		return "Null"
	}
	return "Number"
}
