// Command slotserver is a backend that behaves like a model server and can be made to misbehave while it runs.
//
//	slotserver -listen 127.0.0.1:8501 -name a -set '{"slots": 4, "service_us": 20000}'
//
// It serves at most `slots` requests at a time, each for `service_us`; the others wait in order of arrival, or are refused
// with 503 beyond `queue`. Everything under /-/ is for the experimenter and takes no slot:
//
//	PUT /-/set    a Settings object; what it does not name stays
//	GET /-/stats  a Stats object: what became of every request, exactly
//
// A request whose client leaves while it waits is never started. One that leaves while it is served keeps its slot to the
// end, as a Run of TensorFlow does, unless `cancel_frees` says otherwise.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Settings can be changed while requests are served; shares are from 0 to 1.
type Settings struct {
	Slots       int     `json:"slots"`
	ServiceUS   float64 `json:"service_us"`
	Exponential bool    `json:"exponential"` // service times, instead of all the same
	SlowShare   float64 `json:"slow_share"`  // of the requests take slow_factor times as long
	SlowFactor  float64 `json:"slow_factor"`
	ErrorShare  float64 `json:"error_share"` // of the requests are answered error_status, after their service time
	ErrorStatus int     `json:"error_status"`
	RefuseShare float64 `json:"refuse_share"` // of the requests are answered refuse_status at once, without a slot
	RefuseCode  int     `json:"refuse_status"`
	RetryAfter  int     `json:"retry_after"` // seconds, said with refusals; 0: not said
	ResetShare  float64 `json:"reset_share"` // of the requests lose their connection instead of an answer
	Queue       int     `json:"queue"`       // most that wait; more are refused; below 0: no bound
	Stall       bool    `json:"stall"`       // nothing starts and nothing ends while it is set
	CancelFrees bool    `json:"cancel_frees"`
	Report      bool    `json:"report"` // answer endpoint-load-metrics (ORCA) when asked for it
}

// Stats counts requests from the start of the process. Started = Finished + Wasted + Running.
type Stats struct {
	Received  int64 `json:"received"`
	Started   int64 `json:"started"`   // got a slot
	Finished  int64 `json:"finished"`  // served, and the client still there
	Wasted    int64 `json:"wasted"`    // served for a client that had left
	Abandoned int64 `json:"abandoned"` // left while waiting: never started
	Refused   int64 `json:"refused"`
	Errors    int64 `json:"errors"` // of the finished ones: answered error_status
	Running   int   `json:"running"`
	Waiting   int   `json:"waiting"`
	Late      int64 `json:"late"` // came with X-Request-Timeout at 0
}

type ticket struct {
	granted chan struct{}
	gone    bool
}

// server is the slots and the line before them.
type server struct {
	name string

	mu      sync.Mutex
	set     Settings
	stats   Stats
	line    []*ticket
	changed chan struct{} // closed and replaced when `Stall` changes
}

func (s *server) settings() Settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set
}

// enter returns nil when the line is full; else a ticket whose channel is closed when it has a slot.
func (s *server) enter() *ticket {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.set.Queue >= 0 && s.stats.Waiting >= s.set.Queue && (s.stats.Running >= s.set.Slots || s.set.Stall) {
		s.stats.Refused++
		return nil
	}
	t := &ticket{granted: make(chan struct{})}
	s.line = append(s.line, t)
	s.stats.Waiting++
	s.admit()
	return t
}

// admit gives free slots to whoever waits longest. The caller holds the lock.
func (s *server) admit() {
	for len(s.line) > 0 && s.stats.Running < s.set.Slots && !s.set.Stall {
		t := s.line[0]
		s.line = s.line[1:]
		if t.gone {
			continue
		}
		s.stats.Waiting--
		s.stats.Running++
		s.stats.Started++
		close(t.granted)
	}
}

// leave takes a ticket out of the line; false when it already has a slot.
func (s *server) leave(t *ticket) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-t.granted:
		return false
	default:
	}
	t.gone = true
	s.stats.Waiting--
	s.stats.Abandoned++
	return true
}

func (s *server) release(count *int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Running--
	*count++
	s.admit()
}

func (s *server) count(counter *int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*counter++
}

// serve waits for the service time, and longer while the server is stalled, but not once `done` is closed.
func (s *server) serve(took time.Duration, done <-chan struct{}) {
	timer := time.NewTimer(took)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-done:
		return
	}
	for {
		s.mu.Lock()
		stalled, changed := s.set.Stall, s.changed
		s.mu.Unlock()
		if !stalled {
			return
		}
		select {
		case <-changed:
		case <-done:
			return
		}
	}
}

func (set *Settings) draw() time.Duration {
	took := set.ServiceUS
	if set.Exponential {
		took *= rand.ExpFloat64()
	}
	if set.SlowShare > 0 && rand.Float64() < set.SlowShare {
		took *= set.SlowFactor
	}
	return time.Duration(took * 1e3)
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	set := s.settings()
	s.count(&s.stats.Received)
	if left := r.Header.Get("X-Request-Timeout"); left == "0ms" || left == "0" {
		s.count(&s.stats.Late)
	}
	_, _ = io.Copy(io.Discard, r.Body)
	if set.ResetShare > 0 && rand.Float64() < set.ResetShare {
		reset(w)
		return
	}
	if set.RefuseShare > 0 && rand.Float64() < set.RefuseShare {
		s.count(&s.stats.Refused)
		refuse(w, &set, set.RefuseCode)
		return
	}
	t := s.enter()
	if t == nil {
		refuse(w, &set, http.StatusServiceUnavailable)
		return
	}
	done := r.Context().Done()
	select {
	case <-t.granted:
	case <-done:
		if s.leave(t) {
			return
		}
		<-t.granted
	}
	freed := done
	if !set.CancelFrees {
		freed = nil
	}
	s.serve(set.draw(), freed)
	if r.Context().Err() != nil {
		s.release(&s.stats.Wasted)
		return
	}
	failed := set.ErrorShare > 0 && rand.Float64() < set.ErrorShare
	if failed {
		s.count(&s.stats.Errors)
	}
	s.release(&s.stats.Finished)
	s.answer(w, r, &set, failed)
}

func (s *server) answer(w http.ResponseWriter, r *http.Request, set *Settings, failed bool) {
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("X-Backend", s.name)
	if set.Report && r.Header.Get("Endpoint-Load-Metrics-Format") != "" {
		s.mu.Lock()
		waiting, running := s.stats.Waiting, s.stats.Running
		s.mu.Unlock()
		header.Set("Endpoint-Load-Metrics", fmt.Sprintf(
			`JSON {"application_utilization": %.3f, "named_metrics": {"queue_depth": %d, "capacity": %d}}`,
			float64(running+waiting)/float64(max(set.Slots, 1)), waiting, set.Slots))
	}
	if failed {
		w.WriteHeader(set.ErrorStatus)
		_, _ = io.WriteString(w, `{"error": "as asked for"}`)
		return
	}
	_, _ = io.WriteString(w, `{"predictions": [[0.01, 0.02, 0.91, 0.01, 0.05]], "model": "x"}`)
}

func refuse(w http.ResponseWriter, set *Settings, status int) {
	if set.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(set.RetryAfter))
	}
	http.Error(w, `{"error": "full"}`, status)
}

// reset closes the connection in the rudest way: with a TCP reset.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// read takes what `from` names over into the settings; a name that there is not is an error.
func (set *Settings) read(from io.Reader) error {
	decoder := json.NewDecoder(from)
	decoder.DisallowUnknownFields()
	return decoder.Decode(set)
}

func (s *server) change(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	set := s.set
	if err := set.read(http.MaxBytesReader(w, r.Body, 1<<16)); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.set = set
	close(s.changed)
	s.changed = make(chan struct{})
	s.admit()
	w.WriteHeader(http.StatusNoContent)
}

func (s *server) tell(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(s.stats)
}

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address to listen on")
	name := flag.String("name", "slots", "what X-Backend says")
	first := flag.String("set", "{}", "first settings, as in PUT /-/set")
	flag.Parse()
	log.SetFlags(0)
	s := &server{name: *name, changed: make(chan struct{})}
	s.set = Settings{
		Slots: 4, ServiceUS: 20_000, SlowFactor: 10, ErrorStatus: 500, RefuseCode: 429, Queue: -1,
	}
	if err := s.set.read(strings.NewReader(*first)); err != nil {
		log.Fatalf("slotserver: -set: %v", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /-/set", s.change)
	mux.HandleFunc("GET /-/stats", s.tell)
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	mux.Handle("/", s)
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatalf("slotserver: %v", err)
	}
	fmt.Fprintf(os.Stdout, "%s\n", listener.Addr())
	log.Fatal(http.Serve(listener, mux))
}
