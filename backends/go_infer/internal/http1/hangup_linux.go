package http1

import (
	"errors"
	"os"
	"sync"
	"syscall"
)

// watcher tells connections that their client is gone, while their own goroutine is busy with a request: one epoll instance for all of
// them (EPOLLRDHUP, edge-triggered), which itself waits in Go's poller. A connection costs one system call when it comes, a request none.
// net/http has a goroutine read beside each request for this. As there, a client that closes its sending side has left.
type watcher struct {
	poll *os.File

	mu    sync.Mutex
	next  uint64
	conns map[uint64]*conn // a number is never used again, as a descriptor would be
}

func newWatcher() (*watcher, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		_ = syscall.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	w := &watcher{poll: os.NewFile(uintptr(fd), "hangups"), conns: map[uint64]*conn{}}
	raw, err := w.poll.SyscallConn()
	if err != nil {
		_ = w.poll.Close()
		return nil, err
	}
	go w.run(raw)
	return w, nil
}

func (w *watcher) run(raw syscall.RawConn) {
	events := make([]syscall.EpollEvent, 64)
	for {
		n := 0
		var failed error
		err := raw.Read(func(fd uintptr) bool {
			for {
				if n, failed = syscall.EpollWait(int(fd), events, 0); failed != syscall.EINTR { //nolint:errorlint // an errno
					return n != 0
				}
			}
		})
		if err != nil || failed != nil {
			return // closed
		}
		for _, event := range events[:n] {
			w.mu.Lock()
			c := w.conns[uint64(uint32(event.Fd))|uint64(uint32(event.Pad))<<32]
			w.mu.Unlock()
			if c != nil {
				c.context.end()
			}
		}
	}
}

// add begins to watch; an error says that the kernel will not, for instance because fs.epoll.max_user_watches are watched.
func (w *watcher) add(c *conn) error {
	w.mu.Lock()
	w.next++
	c.number = w.next
	w.conns[c.number] = c
	w.mu.Unlock()
	poll, err := w.poll.SyscallConn()
	if err != nil {
		return err
	}
	event := syscall.EpollEvent{Events: syscall.EPOLLRDHUP | syscall.EPOLLET&0xffffffff, Fd: int32(uint32(c.number)), Pad: int32(uint32(c.number >> 32))}
	var gone, refused error
	err = poll.Control(func(at uintptr) {
		gone = c.raw.Control(func(fd uintptr) {
			refused = os.NewSyscallError("epoll_ctl", syscall.EpollCtl(int(at), syscall.EPOLL_CTL_ADD, int(fd), &event))
		})
	})
	return errors.Join(err, gone, refused)
}

// forget leaves the descriptor in the set, if it is open still: what it tells finds nobody.
func (w *watcher) forget(c *conn) {
	w.mu.Lock()
	delete(w.conns, c.number)
	w.mu.Unlock()
}

func (w *watcher) close() { _ = w.poll.Close() }

// pending looks at a connection without taking anything from it.
func (c *conn) pending() (is pending) {
	if c.raw == nil {
		return silent
	}
	is = gone
	_ = c.raw.Control(func(fd uintptr) {
		var one [1]byte
		n, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		switch {
		case n > 0:
			is = waiting
		case err == syscall.EAGAIN || err == syscall.EINTR: //nolint:errorlint // an errno
			is = silent
		}
	})
	return is
}
