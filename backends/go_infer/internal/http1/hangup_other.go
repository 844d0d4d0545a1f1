//go:build !linux

package http1

import "errors"

// watcher is Linux's; elsewhere a client that has gone is noticed when its answer cannot be written.
type watcher struct{}

func newWatcher() (*watcher, error) { return nil, errors.New("this needs Linux's epoll") }

func (*watcher) add(*conn) error { return nil }

func (*watcher) forget(*conn) {}

func (*watcher) close() {}

func (c *conn) pending() pending { return silent }
