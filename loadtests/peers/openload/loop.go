package main

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

// conn is a keep-alive connection with at most one request under way.
type conn struct {
	fd   int
	due  int64 // of the request under way, nanoseconds since the start
	sent int64
	have int       // bytes of the answer in buffer
	kind *refusals // what its answer is, if not a 200
	want int       // bytes of the whole answer; 0 while its head is not whole
	busy bool
	buf  []byte
}

type load struct {
	request   []byte
	also      map[string]*refusals // by status
	closed    int64                // no schedule: how long to send, nanoseconds
	conns     []conn
	free      []int32
	epoll     int
	timer     int
	began     time.Time
	dues      []int64 // of what was answered, as the next two
	latencies []int64
	lags      []int64
	errors    map[string]int
	open      int
	offered   int
}

func (l *load) prepare(address *net.TCPAddr, connections, total int) error {
	var err error
	if l.epoll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	fd, _, number := syscall.Syscall(syscall.SYS_TIMERFD_CREATE, 1 /* CLOCK_MONOTONIC */, syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if number != 0 {
		return fmt.Errorf("timerfd: %w", number)
	}
	l.timer = int(fd)
	if err := l.watch(l.timer, timerfd); err != nil {
		return err
	}
	to := syscall.SockaddrInet4{Port: address.Port}
	copy(to.Addr[:], address.IP.To4())
	l.conns = make([]conn, connections)
	for i := range l.conns {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("socket: %w", err)
		}
		if err := syscall.Connect(fd, &to); err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		if err := syscall.SetNonblock(fd, true); err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1); err != nil {
			return fmt.Errorf("nodelay: %w", err)
		}
		l.conns[i] = conn{fd: fd, buf: make([]byte, 16<<10)}
		if err := l.watch(fd, int32(i)); err != nil {
			return err
		}
		l.free = append(l.free, int32(connections-1-i))
	}
	l.open = connections
	l.dues = make([]int64, 0, total)
	l.latencies = make([]int64, 0, total)
	l.lags = make([]int64, 0, total)
	return nil
}

func (l *load) watch(fd int, index int32) error {
	event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: index}
	if err := syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_ADD, fd, &event); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	return nil
}

// run sends every request when it is due and reads until all are answered, or the grace is over.
func (l *load) run(due []int64) {
	l.began = time.Now()
	end := max(due[len(due)-1], l.closed) + int64(grace)
	events := make([]syscall.EpollEvent, 256)
	next, armed := 0, int64(-1)
	for l.open > 0 {
		now := l.now()
		if l.closed > 0 && now >= l.closed {
			due = due[:next]
		}
		for next < len(due) && due[next] <= now && len(l.free) > 0 {
			// Last in, first out: the connections in use are as many as the load needs.
			index := l.free[len(l.free)-1]
			l.free = l.free[:len(l.free)-1]
			if l.closed > 0 {
				due[next] = now
			}
			l.send(index, due[next])
			next++
			now = l.now()
		}
		if (next == len(due) && len(l.free) == l.open) || now > end {
			break
		}
		wake := end
		if next < len(due) && len(l.free) > 0 {
			wake = due[next]
		}
		if wake != armed {
			l.arm(wake - now)
			armed = wake
		}
		// Raw: the scheduler need not know, nothing else runs in this process.
		count, _, number := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), ^uintptr(0), 0, 0)
		if number != 0 {
			continue // interrupted
		}
		for _, event := range events[:count] {
			if event.Fd == timerfd {
				armed = -1
				var ticks [8]byte
				_, _, _ = syscall.RawSyscall(syscall.SYS_READ, uintptr(l.timer), uintptr(unsafe.Pointer(&ticks[0])), 8)
				continue
			}
			l.read(event.Fd)
		}
	}
	answered := len(l.latencies)
	for _, each := range l.also {
		answered += len(each.took)
	}
	l.offered = next
	if unanswered := len(due) - answered; unanswered > 0 {
		l.errors["unanswered"] += unanswered
	}
}

func (l *load) now() int64 { return int64(time.Since(l.began)) }

func (l *load) arm(in int64) {
	in = max(in, 1)
	spec := [4]int64{0, 0, in / 1e9, in % 1e9} // struct itimerspec: interval, value
	_, _, _ = syscall.RawSyscall6(syscall.SYS_TIMERFD_SETTIME, uintptr(l.timer), 0, uintptr(unsafe.Pointer(&spec[0])), 0, 0, 0)
}

func (l *load) send(index int32, due int64) {
	c := &l.conns[index]
	c.busy, c.due, c.have, c.want, c.kind = true, due, 0, 0, nil
	c.sent = l.now()
	count, _, number := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(c.fd), uintptr(unsafe.Pointer(&l.request[0])), uintptr(len(l.request)))
	if number != 0 || int(count) != len(l.request) {
		l.fail(c, "write")
	}
}

func (l *load) read(index int32) {
	c := &l.conns[index]
	count, _, number := syscall.RawSyscall(syscall.SYS_READ, uintptr(c.fd), uintptr(unsafe.Pointer(&c.buf[c.have])), uintptr(len(c.buf)-c.have))
	if number == syscall.EAGAIN || number == syscall.EINTR {
		return
	}
	if number != 0 || count == 0 {
		l.fail(c, "closed")
		return
	}
	if !c.busy {
		l.fail(c, "unasked")
		return
	}
	c.have += int(count)
	if c.want == 0 {
		if wrong := c.frame(l.also); wrong != "" {
			l.fail(c, wrong)
			return
		}
	}
	switch {
	case c.want == 0 || c.have < c.want:
	case c.have > c.want:
		l.fail(c, "unasked")
	default:
		if c.kind != nil {
			c.kind.sent = append(c.kind.sent, c.sent)
			c.kind.took = append(c.kind.took, l.now()-c.sent)
		} else {
			l.latencies = append(l.latencies, l.now()-c.due)
			l.lags = append(l.lags, c.sent-c.due)
			l.dues = append(l.dues, c.due)
		}
		c.busy = false
		l.free = append(l.free, index)
	}
}

// frame finds the length of the answer once its head is whole; what is wrong with it, or "".
func (c *conn) frame(also map[string]*refusals) string {
	got := c.buf[:c.have]
	head := bytes.Index(got, []byte("\r\n\r\n"))
	if head < 0 {
		return ""
	}
	if !bytes.HasPrefix(got, []byte("HTTP/1.1 200 ")) {
		if c.kind = also[string(got[9:12])]; c.kind == nil {
			return "status " + string(got[9:12])
		}
	}
	for line := range bytes.SplitSeq(got[:head], []byte("\r\n")) {
		name, value, found := bytes.Cut(line, []byte(":"))
		if found && bytes.EqualFold(name, []byte("content-length")) {
			length, err := strconv.Atoi(string(bytes.TrimSpace(value)))
			if err != nil || head+4+length > len(c.buf) {
				return "too large"
			}
			c.want = head + 4 + length
			return ""
		}
	}
	return "no length"
}

func (l *load) fail(c *conn, what string) {
	l.errors[what]++
	l.open--
	_ = syscall.Close(c.fd)
	for i, index := range l.free {
		if &l.conns[index] == c {
			l.free = slices.Delete(l.free, i, i+1)
			break
		}
	}
	c.busy = false
}
