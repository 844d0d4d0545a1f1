// Command openload is an open-loop HTTP/1.1 load generator that costs little: requests are sent when they are due,
// whatever became of the earlier ones, and latency counts from then, so that a stall is as many slow requests as fell
// into it.
//
//	openload -target 127.0.0.1:8080 -path / -rate 1000 -seconds 3 -connections 64 -header 'X-API-Key: k'
//
// One thread, epoll and a timerfd, no goroutine per connection, no garbage collection during the run: what it adds by
// itself is a few tens of microseconds, and is told as "lag". Arrivals are a Poisson process of fixed seed. A request that
// is due while no connection is free waits for one, and its clock runs. With -closed every connection sends its next request
// when it has its answer. It prints one line of JSON; exit status 1 if any answer was neither a 200 nor of a status that
// -also names, or did not state its length, or none came.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"math/rand"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

const (
	grace      = 5 * time.Second // for answers that are under way at the end
	maxSeconds = 300
	maxTotal   = 5_000_000
	timerfd    = -1 // marks the timer in epoll's events; connections have their index
)

type fields []string

func (f *fields) String() string { return strings.Join(*f, ", ") }

func (f *fields) Set(value string) error {
	*f = append(*f, value)
	return nil
}

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

// refusals are the answers of one status that are not what was asked for: when each was sent, and how long it took from then.
type refusals struct {
	sent, took []int64
}

// Refused is one status of -also, from when the requests were sent. Times in microseconds.
type Refused struct {
	Answered int     `json:"answered"`
	P50      float64 `json:"p50"`
	P90      float64 `json:"p90"`
	P99      float64 `json:"p99"`
	P999     float64 `json:"p999"`
	Max      float64 `json:"max"`

	Took []float64 `json:"took,omitempty"` // each, ascending, with -list
}

// Result is what is printed. Times in microseconds. Counted are the answers of status 200 after the warm-up.
type Result struct {
	Offered  int                `json:"offered"`
	Answered int                `json:"answered"`
	Counted  int                `json:"counted"`
	Also     map[string]Refused `json:"also"`
	Errors   map[string]int     `json:"errors"`
	Seconds  float64            `json:"seconds"`
	P50      float64            `json:"p50"`
	P90      float64            `json:"p90"`
	P99      float64            `json:"p99"`
	P999     float64            `json:"p999"`
	Max      float64            `json:"max"`
	LagP99   float64            `json:"lag_p99"`
	CPU      float64            `json:"cpu"` // seconds of this program's, user and system
}

func main() {
	target := flag.String("target", "127.0.0.1:8080", "address of the server, on loopback")
	path := flag.String("path", "/", "what to ask for")
	rate := flag.Float64("rate", 1000, "requests a second")
	seconds := flag.Float64("seconds", 3, "how long")
	warm := flag.Float64("warm", 0.3, "seconds at the beginning that are not counted")
	connections := flag.Int("connections", 64, "keep-alive connections")
	seed := flag.Int64("seed", 1, "of the arrivals")
	bodyFile := flag.String("body", "", "file to POST; without one, requests are GETs")
	also := flag.String("also", "", "statuses, as in 503,504, that are answers, too")
	list := flag.Bool("list", false, "print how long each answer of -also took")
	closed := flag.Bool("closed", false, "every connection sends when it has its answer; -rate bounds the number of requests")
	var headers fields
	flag.Var(&headers, "header", "a field; may be given several times")
	flag.Parse()
	address, err := net.ResolveTCPAddr("tcp4", *target)
	if err != nil || !address.IP.IsLoopback() {
		log.Fatalf("openload: -target %q is not a loopback address", *target)
	}
	total := int(*rate * *seconds)
	if total < 1 || total > maxTotal || *seconds > maxSeconds || *connections < 1 || *connections > 10_000 {
		log.Fatal("openload: rate, seconds or connections out of range")
	}
	var request bytes.Buffer
	var body []byte
	method := "GET"
	if *bodyFile != "" {
		if body, err = os.ReadFile(*bodyFile); err != nil {
			log.Fatalf("openload: -body: %v", err)
		}
		method = "POST"
	}
	fmt.Fprintf(&request, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, *path, *target)
	if method == "POST" {
		fmt.Fprintf(&request, "Content-Length: %d\r\n", len(body))
	}
	for _, field := range headers {
		fmt.Fprintf(&request, "%s\r\n", field)
	}
	request.WriteString("\r\n")
	request.Write(body)

	runtime.LockOSThread()
	l := &load{request: request.Bytes(), errors: map[string]int{}, also: map[string]*refusals{}}
	for status := range strings.SplitSeq(*also, ",") {
		if status != "" {
			l.also[status] = &refusals{sent: make([]int64, 0, total), took: make([]int64, 0, total)}
		}
	}
	if err := l.prepare(address, *connections, total); err != nil {
		log.Fatalf("openload: %v", err)
	}
	due := arrivals(total, *rate, *seed)
	if *closed {
		l.closed = int64(*seconds * 1e9)
		clear(due)
	}
	debug.SetGCPercent(-1)
	l.run(due)

	from := int64(*warm * 1e9)
	result := l.result(from, *list)
	out, _ := json.Marshal(result)
	fmt.Println(string(out))
	if len(l.errors) > 0 || result.Answered == 0 {
		os.Exit(1)
	}
}

// arrivals are the times of a Poisson process, in nanoseconds.
func arrivals(total int, rate float64, seed int64) []int64 {
	random := rand.New(rand.NewSource(seed))
	due := make([]int64, total)
	at := 0.0
	for i := range due {
		at += random.ExpFloat64() / rate
		due[i] = int64(at * 1e9)
	}
	return due
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

// result leaves out what was due in the warm-up.
func (l *load) result(from int64, list bool) Result {
	var latencies, lags []int64
	for i, due := range l.dues {
		if due >= from {
			latencies, lags = append(latencies, l.latencies[i]), append(lags, l.lags[i])
		}
	}
	slices.Sort(latencies)
	slices.Sort(lags)
	r := Result{
		Offered: l.offered, Answered: len(l.latencies), Counted: len(latencies), Errors: l.errors, Seconds: float64(l.now()) / 1e9,
		P50: at(latencies, 50), P90: at(latencies, 90), P99: at(latencies, 99), P999: at(latencies, 99.9), Max: at(latencies, 100),
		LagP99: at(lags, 99), Also: map[string]Refused{}, CPU: cpu(),
	}
	for status, each := range l.also {
		var took []int64
		for i, sent := range each.sent {
			if sent >= from {
				took = append(took, each.took[i])
			}
		}
		slices.Sort(took)
		found := Refused{Answered: len(took), P50: at(took, 50), P90: at(took, 90), P99: at(took, 99), P999: at(took, 99.9), Max: at(took, 100)}
		if list {
			for _, each := range took {
				found.Took = append(found.Took, float64(each)/1e3)
			}
		}
		r.Also[status] = found
	}
	return r
}

// cpu is the processor's time that this process has used, in seconds.
func cpu() float64 {
	var used syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	return float64(used.Utime.Nano()+used.Stime.Nano()) / 1e9
}

// at is the nearest-rank percentile in microseconds; 0 of none.
func at(ordered []int64, q float64) float64 {
	if len(ordered) == 0 {
		return 0
	}
	rank := int(float64(len(ordered))*q/100+0.999999) - 1
	return float64(ordered[min(max(rank, 0), len(ordered)-1)]) / 1e3
}
