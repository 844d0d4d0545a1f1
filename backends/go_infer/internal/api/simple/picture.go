package simple

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"strings"

	"sluicegate/go_infer/internal/api"
	"sluicegate/go_infer/internal/jsontensor"
	"sluicegate/go_infer/internal/status"
)

// picture finds the image in a request: in a JSON body, in a form, or the body itself. What Content-Type says decides only where it is
// ambiguous: curl calls everything a form.
func picture(x *api.Exchange) ([]byte, error) {
	kind, parameters, _ := mime.ParseMediaType(x.Request.Header.Get("Content-Type"))
	trimmed := bytes.TrimLeft(x.Body, " \t\r\n")
	switch {
	case kind == "multipart/form-data":
		return fromForm(x.Body, parameters["boundary"])
	case kind == "application/json", len(trimmed) > 0 && trimmed[0] == '{':
		return fromJSON(x.Body)
	}
	return x.Body, nil
}

// fromJSON reads {"image": {"b64": "..."}}; {"image": "..."} is understood too.
func fromJSON(body []byte) ([]byte, error) {
	document, err := jsontensor.Scan(body)
	if err != nil {
		return nil, err
	}
	span := document.Image
	if span.Found() {
		if inner := jsontensor.Member(body, span, "b64"); inner.Found() {
			span = inner
		}
		if text, ok := jsontensor.Text(body, span); ok {
			return decode(text)
		}
	}
	return nil, status.Errorf(status.InvalidArgument, `no image in the JSON; send {"image": {"b64": "..."}}, or the PNG or JPEG itself as the body`)
}

func decode(text string) ([]byte, error) {
	encoding := base64.StdEncoding
	if strings.ContainsAny(text, "-_") {
		encoding = base64.URLEncoding
	}
	picture, err := encoding.WithPadding(base64.NoPadding).DecodeString(strings.TrimRight(text, "="))
	if err != nil {
		return nil, status.Errorf(status.InvalidArgument, "image.b64 is not base64: %v", err)
	}
	return picture, nil
}

// fromForm takes the first file of a form, or the field called image.
func fromForm(body []byte, boundary string) ([]byte, error) {
	form := multipart.NewReader(bytes.NewReader(body), boundary)
	for {
		part, err := form.NextPart()
		if errors.Is(err, io.EOF) {
			return nil, status.Errorf(status.InvalidArgument, "no file in the form; send one, for instance with curl -F image=@digit.png")
		}
		if err != nil {
			return nil, status.Errorf(status.InvalidArgument, "the form cannot be read: %v", err)
		}
		if part.FileName() == "" && part.FormName() != "image" {
			continue
		}
		picture, err := io.ReadAll(part) // bounded by the body, which is in memory already
		if err != nil {
			return nil, status.Errorf(status.InvalidArgument, "the form's file %q cannot be read: %v", part.FileName(), err)
		}
		return picture, nil
	}
}
