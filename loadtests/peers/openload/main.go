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
	"strings"
	"time"
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
