package jsontensor

import (
	"iter"

	"sluicegate/go_infer/internal/model"
)

// Top is the place of the document's top object, for Member.
func (d *Document) Top() Span { return Span{skipSpace(d.Body, 0), len(d.Body)} }

// Items are the items of a list; none if the value is something else. The document must have been scanned.
func Items(body []byte, span Span) iter.Seq[Span] {
	return func(yield func(Span) bool) {
		if body[span.Start] != '[' {
			return
		}
		at, more := first(body, span.Start)
		for more {
			end := skip(body, at)
			if !yield(Span{at, end}) {
				return
			}
			at, more = next(body, end)
		}
	}
}

// AppendRow writes one row of an output that has rows.
func AppendRow(text []byte, signature *model.Signature, request *model.Request, output, row int) []byte {
	return appendRow(text, signature, request, output, row)
}
