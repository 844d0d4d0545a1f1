//go:build cloud

package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"strings"
	"sync"

	"gocloud.dev/blob"
	_ "gocloud.dev/blob/gcsblob" // gs://
	_ "gocloud.dev/blob/s3blob"  // s3://
	"gocloud.dev/gcerrors"

	"sluicegate/go_infer/internal/remote"
)

func init() {
	for _, scheme := range []string{"s3", "gs"} {
		remote.Register(scheme, open)
	}
}

// store is BUCKET/PREFIX. The bucket is opened when it is first asked: finding credentials may take a request.
type store struct {
	address string // of the bucket, without the prefix
	prefix  string // ends with a slash, or is empty

	mu     sync.Mutex
	bucket *blob.Bucket
}

func open(address *url.URL) (remote.Store, error) {
	if address.Host == "" {
		return nil, fmt.Errorf("%w: the address names no bucket", remote.ErrRefused)
	}
	bare := url.URL{Scheme: address.Scheme, Host: address.Host, RawQuery: address.RawQuery}
	s := &store{address: bare.String(), prefix: strings.Trim(address.Path, "/")}
	if s.prefix != "" {
		s.prefix += "/"
	}
	return s, nil
}

func (s *store) opened(ctx context.Context) (*blob.Bucket, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bucket == nil {
		bucket, err := blob.OpenBucket(ctx, s.address)
		if err != nil {
			return nil, understood(err)
		}
		s.bucket = bucket
	}
	return s.bucket, nil
}

// Open reads from offset on. Buckets replace objects whole, so the entity tag tells whether it is still the same one; it is asked for
// again after the reader was opened, in case the object was replaced between the two.
func (s *store) Open(ctx context.Context, key string, offset int64, tag string) (*remote.Content, error) {
	bucket, err := s.opened(ctx)
	if err != nil {
		return nil, err
	}
	before, err := bucket.Attributes(ctx, s.prefix+key)
	if err != nil {
		return nil, understood(err)
	}
	if tag != "" && tag != tagOf(before.MD5, before.ModTime.UnixNano(), before.Size) || offset > before.Size {
		offset = 0
	}
	reader, err := bucket.NewRangeReader(ctx, s.prefix+key, offset, -1, nil)
	if err != nil {
		return nil, understood(err)
	}
	after, err := bucket.Attributes(ctx, s.prefix+key)
	if err != nil || after.ETag != before.ETag {
		_ = reader.Close()
		if err != nil {
			return nil, understood(err)
		}
		return nil, errors.New("it was replaced while it was opened")
	}
	return &remote.Content{ReadCloser: plain{reader}, Offset: offset, Size: before.Size,
		Tag: tagOf(before.MD5, before.ModTime.UnixNano(), before.Size)}, nil
}

// plain words the reader's errors.
type plain struct{ io.ReadCloser }

func (p plain) Read(into []byte) (int, error) {
	n, err := p.ReadCloser.Read(into)
	if err != nil && !errors.Is(err, io.EOF) {
		err = understood(err)
	}
	return n, err
}

// tagOf is what listings and attributes both know.
func tagOf(md5 []byte, changed, size int64) string {
	if len(md5) > 0 {
		return fmt.Sprintf("%x", md5)
	}
	return fmt.Sprintf("%d %d", changed, size)
}

// Folders lists the prefixes directly below the base.
func (s *store) Folders(ctx context.Context) (names []string, err error) {
	return names, s.each(ctx, &blob.ListOptions{Prefix: s.prefix, Delimiter: "/"}, func(object *blob.ListObject) error {
		if object.IsDir {
			names = append(names, strings.TrimSuffix(strings.TrimPrefix(object.Key, s.prefix), "/"))
		}
		return nil
	})
}

// List visits the objects below a folder. Empty objects whose names end with a slash are what consoles make of directories.
func (s *store) List(ctx context.Context, folder string, visit func(remote.Object) error) error {
	prefix := s.prefix + folder + "/"
	return s.each(ctx, &blob.ListOptions{Prefix: prefix}, func(object *blob.ListObject) error {
		if strings.HasSuffix(object.Key, "/") && object.Size == 0 {
			return nil
		}
		sum := object.MD5
		if len(sum) == 0 { // composed and multipart objects have none
			sum = nil
		}
		return visit(remote.Object{Path: strings.TrimPrefix(object.Key, prefix), Size: object.Size, MD5: sum,
			Tag: tagOf(object.MD5, object.ModTime.UnixNano(), object.Size)})
	})
}

func (s *store) each(ctx context.Context, options *blob.ListOptions, visit func(*blob.ListObject) error) error {
	bucket, err := s.opened(ctx)
	if err != nil {
		return err
	}
	for objects := bucket.List(options); ; {
		object, err := objects.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return understood(err)
		}
		if err := visit(object); err != nil {
			return err
		}
	}
}

func (s *store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bucket == nil {
		return nil
	}
	defer func() { s.bucket = nil }()
	return s.bucket.Close()
}

// secrets are what an SDK's error may quote of a signed request.
var secrets = regexp.MustCompile(`(?i)((?:X-Amz-[a-z-]+|X-Goog-[a-z-]+|Signature|AWSAccessKeyId|access_token|Credential)=)[^&\s",]+`)

// understood sorts an SDK's error into those of package remote, and takes out what is secret.
func understood(err error) error {
	text := secrets.ReplaceAllString(err.Error(), "${1}***")
	switch gcerrors.Code(err) {
	case gcerrors.NotFound:
		return fmt.Errorf("%w: %s", remote.ErrNotFound, text)
	case gcerrors.PermissionDenied, gcerrors.InvalidArgument, gcerrors.Unimplemented, gcerrors.FailedPrecondition:
		return fmt.Errorf("%w: %s", remote.ErrRefused, text)
	case gcerrors.Canceled, gcerrors.DeadlineExceeded:
		return err
	}
	return errors.New(text)
}
