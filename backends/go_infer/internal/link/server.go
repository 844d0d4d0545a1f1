package link

import (
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxLinks    = 1024 // a gateway's worker has one
	maxStreams  = 1024
	idleWorkers = 256 // goroutines kept with their grown stacks
)

// Starter is a handler that can answer some requests in two steps, so that no goroutine waits between them.
type Starter interface {
	// Start begins to answer a request whose body is all there, and waits for nothing. False: it cannot, nothing has happened, and
	// ServeHTTP can. Else resume is called once, by whoever has the answer: it calls answer, which writes it to w and does not wait, and
	// returns what is to be called when all who are answered together have been; nil: nothing.
	Start(w http.ResponseWriter, r *http.Request, resume func(answer func()) (after func())) bool
}

// Server is every link of a process.
type Server struct {
	Handler http.Handler
	Log     *slog.Logger
	Load    func() Load // how busy the server is, without the service time; nil: not told

	starter    Starter // the Handler, if it is one
	mine       settings
	total      atomic.Int64
	open       atomic.Int64
	cancelled  atomic.Int64
	violations atomic.Int64
	cut        atomic.Int64 // requests that had not arrived
	short      atomic.Int64 // requests that had not been answered
	over       atomic.Int64 // when Stop ends, in nanoseconds since 1970; 0: not known
	service    atomic.Int64 // nanoseconds, moving average

	mu       sync.Mutex
	links    map[*conn]struct{}
	draining bool
	stopping bool

	workers sync.Mutex
	idle    []chan *stream
	ended   bool
}

// New makes a server without links.
func New(handler http.Handler, log *slog.Logger, load func() Load) *Server {
	mine := silent
	mine.maxStreams = maxStreams
	starter, _ := handler.(Starter)
	return &Server{Handler: handler, Log: log, Load: load, starter: starter, mine: mine, links: map[*conn]struct{}{}}
}

// Links, Streams, Total, Cancelled and Violations are for metrics.
func (s *Server) Links() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.links)
}

// Streams is the number of requests being answered on links.
func (s *Server) Streams() int64 { return s.open.Load() }

// Total is the number of requests that came on links.
func (s *Server) Total() int64 { return s.total.Load() }

// Cancelled is the number of streams that the peer gave up.
func (s *Server) Cancelled() int64 { return s.cancelled.Load() }

// Violations is the number of links that ended because the peer broke the protocol.
func (s *Server) Violations() int64 { return s.violations.Load() }

// Wanted says whether the request asks for a link in a version that is spoken here.
func Wanted(r *http.Request) bool {
	asked := r.Header["Upgrade"]
	if len(asked) == 0 {
		return false
	}
	for _, value := range asked {
		for offer := range strings.SplitSeq(value, ",") {
			if strings.TrimSpace(offer) == Protocol {
				return true
			}
		}
	}
	return false
}

// Offer turns the request's connection into a link and serves it; it returns when the link has ended. While draining, or with too many
// links, the answer is an ordinary 503.
func (s *Server) Offer(w http.ResponseWriter, _ *http.Request) {
	if s.full() {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "no new link now", http.StatusServiceUnavailable)
		return
	}
	network, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "no link on this connection", http.StatusNotImplemented)
		return
	}
	_ = network.SetDeadline(time.Time{})
	early, _ := buffered.Reader.Peek(buffered.Reader.Buffered())
	c := newConn(s, network)
	c.out = append(c.out, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+Protocol+"\r\n\r\n"...)
	c.out = appendHello(c.out, s.mine)
	s.begin(c)
	defer s.forget(c)
	c.run(early)
}

func (s *Server) full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining || len(s.links) >= maxLinks
}

// begin adds a link, which nobody has seen yet.
func (s *Server) begin(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.links[c] = struct{}{}
	if s.draining { // since it was looked at
		c.out = appendDrain(c.out)
	}
	c.refusing, c.closing = s.stopping, s.stopping
	c.kick()
}

func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.links, c)
}

func (s *Server) load() Load {
	load := s.Load()
	load.ServiceMicros = uint32(min(s.service.Load()/1000, 1<<32-1))
	return load
}

// served counts a request out. The average forgets half in about eleven requests; a lost update in a race is no harm.
func (s *Server) served(took time.Duration) {
	old := s.service.Load()
	if old == 0 {
		old = int64(took)
	}
	s.service.Store(old + (int64(took)-old)/16)
	s.open.Add(-1)
}

// -- workers: goroutines that keep their stacks

// hand gives a stream to a worker.
func (s *Server) hand(work *stream) {
	s.workers.Lock()
	if n := len(s.idle); n > 0 {
		worker := s.idle[n-1]
		s.idle = s.idle[:n-1]
		s.workers.Unlock()
		worker <- work
		return
	}
	s.workers.Unlock()
	go s.work(work)
}

func (s *Server) work(work *stream) {
	mine := make(chan *stream, 1)
	for work != nil {
		work.serve()
		s.workers.Lock()
		if len(s.idle) >= idleWorkers || s.ended {
			s.workers.Unlock()
			return
		}
		s.idle = append(s.idle, mine)
		s.workers.Unlock()
		work = <-mine
	}
}

func (s *Server) dismiss() {
	s.workers.Lock()
	defer s.workers.Unlock()
	s.ended = true
	for _, worker := range s.idle {
		worker <- nil
	}
	s.idle = nil
}
