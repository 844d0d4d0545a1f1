package simple

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"strings"

	"sluicegate/go_infer/internal/api"
	"sluicegate/go_infer/internal/image"
	"sluicegate/go_infer/internal/jsontensor"
	"sluicegate/go_infer/internal/status"
)

// sent is what a request for pictures brings.
type sent struct {
	pictures [][]byte
	list     bool   // sent as a list, and so to be answered as one
	declared []byte // preprocessing of the request's own, JSON; nil if it has none
	most     int    // pictures that are accepted
}

// read finds the pictures in a request: in a JSON body, in a form, or the body itself. What Content-Type says decides only where it is
// ambiguous: curl calls everything a form. Pictures may lie in the body's memory.
func read(x *api.Exchange, most int) (*sent, error) {
	s := &sent{most: most}
	kind, parameters, _ := mime.ParseMediaType(x.Request.Header.Get("Content-Type"))
	trimmed := bytes.TrimLeft(x.Body, " \t\r\n")
	switch {
	case kind == "multipart/form-data":
		return s, s.form(x.Body, parameters["boundary"])
	case kind == "application/json", len(trimmed) > 0 && trimmed[0] == '{':
		return s, s.json(x.Body)
	}
	return s, s.add(x.Body)
}

func (s *sent) add(picture []byte) error {
	if len(s.pictures) >= s.most {
		return status.Errorf(status.InvalidArgument, "the request has more than the %d pictures that --max_images allows", s.most)
	}
	s.pictures = append(s.pictures, picture)
	return nil
}

const noImage = `no image in the JSON; send {"image": {"b64": "..."}}, {"images": [{"b64": "..."}, ...]}, or the ` + image.Formats + ` itself as the body`

// json reads {"image": {"b64": "..."}} or {"images": [{"b64": "..."}, ...]}, and "preprocess" beside them; a plain string is understood
// where an object with b64 is expected.
func (s *sent) json(body []byte) error {
	document, err := jsontensor.Scan(body)
	if err != nil {
		return err
	}
	if span := jsontensor.Member(body, document.Top(), "preprocess"); span.Found() {
		s.declared = body[span.Start:span.End]
	}
	images := jsontensor.Member(body, document.Top(), "images")
	switch {
	case document.Image.Found() && images.Found():
		return status.Errorf(status.InvalidArgument, `the JSON has both "image" and "images"; send one of them`)
	case document.Image.Found():
		return s.encoded(body, document.Image, "image")
	case !images.Found() || body[images.Start] != '[':
		return status.Errorf(status.InvalidArgument, noImage)
	}
	s.list = true
	number := 0
	for span := range jsontensor.Items(body, images) {
		if err := s.encoded(body, span, fmt.Sprintf("images[%d]", number)); err != nil {
			return err
		}
		number++
	}
	if number == 0 {
		return status.Errorf(status.InvalidArgument, `"images" is empty`)
	}
	return nil
}

func (s *sent) encoded(body []byte, span jsontensor.Span, name string) error {
	if inner := jsontensor.Member(body, span, "b64"); inner.Found() {
		span, name = inner, name+".b64"
	}
	text, ok := jsontensor.Text(body, span)
	if !ok {
		return status.Errorf(status.InvalidArgument, `%s is no picture; send {"b64": "..."}`, name)
	}
	encoding := base64.StdEncoding
	if strings.ContainsAny(text, "-_") {
		encoding = base64.URLEncoding
	}
	picture, err := encoding.WithPadding(base64.NoPadding).DecodeString(strings.TrimRight(text, "="))
	if err != nil {
		return status.Errorf(status.InvalidArgument, "%s is not base64: %v", name, err)
	}
	return s.add(picture)
}

// form takes every file of a form and every field called image; a field called preprocess is JSON.
func (s *sent) form(body []byte, boundary string) error {
	form := multipart.NewReader(bytes.NewReader(body), boundary)
	for {
		part, err := form.NextPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return status.Errorf(status.InvalidArgument, "the form cannot be read: %v", err)
		}
		declares := part.FormName() == "preprocess"
		if part.FileName() == "" && part.FormName() != "image" && !declares {
			continue
		}
		content, err := io.ReadAll(part) // bounded by the body, which is in memory already
		if err != nil {
			return status.Errorf(status.InvalidArgument, "the form's file %q cannot be read: %v", part.FileName(), err)
		}
		if declares {
			s.declared = content
		} else if err := s.add(content); err != nil {
			return err
		}
	}
	if len(s.pictures) == 0 {
		return status.Errorf(status.InvalidArgument, "no file in the form; send one, for instance with curl -F image=@digit.png")
	}
	s.list = len(s.pictures) > 1
	return nil
}
