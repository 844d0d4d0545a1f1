package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// TokenVariable is the environment's token for web servers, sent as "Authorization: Bearer" to the address's own host over HTTPS, or over
// HTTP to a loopback address only.
const TokenVariable = "SLUICEGATE_REPOSITORY_TOKEN" // #nosec G101 -- its name

// web is http(s)://HOST/PATH.
type web struct {
	base   *url.URL
	client *http.Client
	token  string
}

func openWeb(address *url.URL) (Store, error) {
	if address.Host == "" {
		return nil, fmt.Errorf("%w: the address has no host", ErrRefused)
	}
	base := *address
	base.Path = strings.TrimSuffix(base.Path, "/") + "/"
	base.Fragment = ""
	w := &web{base: &base}
	if token := os.Getenv(TokenVariable); token != "" && (base.Scheme == "https" || loopback(base.Hostname())) {
		w.token = token
	}
	w.client = &http.Client{
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			TLSHandshakeTimeout:    10 * time.Second,
			MaxIdleConnsPerHost:    8,
			IdleConnTimeout:        30 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
			DisableCompression:     true, // ranges are of the file's own bytes
			ForceAttemptHTTP2:      true,
		},
		CheckRedirect: func(request *http.Request, via []*http.Request) error {
			switch {
			case len(via) > 5:
				return fmt.Errorf("%w: more than 5 redirects", ErrRefused)
			case via[0].URL.Scheme == "https" && request.URL.Scheme != "https":
				return fmt.Errorf("%w: it redirects from https to %s", ErrRefused, request.URL.Scheme)
			}
			return nil
		},
	}
	return w, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (w *web) Open(ctx context.Context, key string, offset int64, tag string) (*Content, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, w.base.JoinPath(key).String(), nil)
	if err != nil {
		return nil, fmt.Errorf("%w: it cannot be asked for", ErrRefused)
	}
	request.Header.Set("Accept-Encoding", "identity")
	request.Header.Set("User-Agent", "go_infer")
	if w.token != "" {
		request.Header.Set("Authorization", "Bearer "+w.token)
	}
	if offset > 0 {
		request.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
		if tag != "" {
			request.Header.Set("If-Range", tag) // RFC 9110, 13.1.5: the whole file if it is another one
		}
	}
	response, err := w.client.Do(request)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) { // its text has the address with what is secret in it
			err = wrapped.Err
		}
		return nil, err
	}
	content, err := accept(response, offset, tag)
	if err != nil {
		_ = response.Body.Close()
		return nil, err
	}
	return content, nil
}

// accept understands an answer. 4xx that no retry changes are refused; so is what was encoded, whose bytes are not the file's.
func accept(response *http.Response, offset int64, tag string) (*Content, error) {
	content := &Content{ReadCloser: response.Body, Size: response.ContentLength, Tag: validator(response.Header)}
	switch code := response.StatusCode; {
	case code == http.StatusOK:
	case code == http.StatusPartialContent && offset > 0:
		begin, size, err := contentRange(response.Header.Get("Content-Range"))
		if err != nil {
			return nil, err
		}
		content.Offset, content.Size = begin, size
		if tag != "" && content.Tag != "" && content.Tag != tag {
			return nil, fmt.Errorf("%w: the server mixes two files", ErrChanged)
		}
	case code == http.StatusNotFound, code == http.StatusGone:
		return nil, fmt.Errorf("%w: the server says %s", ErrNotFound, response.Status)
	case code == http.StatusRequestedRangeNotSatisfiable:
		return nil, fmt.Errorf("%w: the server says %s", ErrChanged, response.Status)
	case code == http.StatusRequestTimeout, code == http.StatusTooEarly, code == http.StatusTooManyRequests, code >= 500:
		return nil, fmt.Errorf("the server says %s", response.Status)
	default:
		return nil, fmt.Errorf("%w: the server says %s", ErrRefused, response.Status)
	}
	if encoding := response.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return nil, fmt.Errorf("%w: the server sends it encoded as %q, though asked not to", ErrRefused, encoding)
	}
	return content, nil
}

// validator is what If-Range may carry: a strong entity tag, else the date of the last change.
func validator(header http.Header) string {
	if tag := header.Get("ETag"); tag != "" && !strings.HasPrefix(tag, "W/") {
		return tag
	}
	return header.Get("Last-Modified")
}

// contentRange reads "bytes 5-9/10" (RFC 9110, 14.4).
func contentRange(text string) (begin, size int64, err error) {
	span, whole, _ := strings.Cut(strings.TrimPrefix(text, "bytes "), "/")
	first, _, _ := strings.Cut(span, "-")
	begin, err = strconv.ParseInt(first, 10, 64)
	if err != nil || begin < 0 || !strings.HasPrefix(text, "bytes ") {
		return 0, 0, fmt.Errorf("%w: the server's Content-Range is %.40q", ErrRefused, text)
	}
	if size, err = strconv.ParseInt(whole, 10, 64); err != nil {
		size = -1
	}
	return begin, size, nil
}

func (w *web) Folders(context.Context) ([]string, error) { return nil, errNoListing }

func (w *web) List(context.Context, string, func(Object) error) error { return errNoListing }

func (w *web) Close() error {
	w.client.CloseIdleConnections()
	return nil
}

var _ io.Closer = (*web)(nil)
