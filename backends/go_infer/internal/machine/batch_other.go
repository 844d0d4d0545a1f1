//go:build !linux

package machine

import "errors"

// Batch is Linux's.
func Batch() error { return errors.ErrUnsupported }
