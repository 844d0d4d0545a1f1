package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
)

const piece = 16 << 10 // bytes of one Write

// streams are answers that come bit by bit, for tests of who gives whom credit, and when.
type streams struct {
	mux  http.ServeMux
	next chan struct{}

	open, written, cancelled atomic.Int64
}

func newStreams() *streams {
	s := &streams{next: make(chan struct{})}
	s.mux.HandleFunc("GET /stream/bytes/{count}", s.bytes)
	s.mux.HandleFunc("GET /stream/events", s.events)
	s.mux.HandleFunc("POST /stream/next", s.another)
	s.mux.HandleFunc("GET /stream/told", s.told)
	return s
}

// bytes sends count bytes; with ?stated it says so before.
func (s *streams) bytes(w http.ResponseWriter, r *http.Request) {
	left, err := strconv.Atoi(r.PathValue("count"))
	if err != nil || left < 0 {
		http.Error(w, "not a number of bytes", http.StatusBadRequest)
		return
	}
	s.open.Add(1)
	defer s.leave(r)
	if r.URL.Query().Has("stated") {
		w.Header().Set("Content-Length", strconv.Itoa(left))
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	data := make([]byte, piece)
	for left > 0 {
		n, err := w.Write(data[:min(left, piece)])
		s.written.Add(int64(n))
		left -= n
		if err != nil {
			return
		}
	}
}

// events sends an event at once and another each time it is asked to, until ?count were sent.
func (s *streams) events(w http.ResponseWriter, r *http.Request) {
	count, _ := strconv.Atoi(r.URL.Query().Get("count"))
	s.open.Add(1)
	defer s.leave(r)
	w.Header().Set("Content-Type", "text/event-stream")
	for number := 0; ; {
		fmt.Fprintf(w, "data: %d\n\n", number)
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
		if number++; number == count {
			return
		}
		select {
		case <-s.next:
		case <-r.Context().Done():
			return
		}
	}
}

// another lets one of the waiting send its next event.
func (s *streams) another(w http.ResponseWriter, r *http.Request) {
	select {
	case s.next <- struct{}{}:
		_, _ = io.WriteString(w, "sent\n")
	case <-r.Context().Done():
	}
}

// told says how many answers are on their way, how much the link took of them all, and how many handlers were told to stop.
func (s *streams) told(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]int64{
		"open": s.open.Load(), "written": s.written.Load(), "cancelled": s.cancelled.Load()})
}

func (s *streams) leave(r *http.Request) {
	if r.Context().Err() != nil {
		s.cancelled.Add(1)
	}
	s.open.Add(-1)
}
