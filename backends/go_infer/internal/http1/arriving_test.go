package http1

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"sluicegate/go_infer/internal/stop"
)

// TestWhatTricklesInIsRefusedWhenTheServerMustStop: it gets what is left of the time, and not one that it says itself.
func TestWhatTricklesInIsRefusedWhenTheServerMustStop(t *testing.T) {
	for name, c := range map[string]struct {
		says string
		more string // byte by byte, as long as the server listens
		code int
		most int // bytes of more; 0: no bound
	}{
		"a body":          {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n", "x", 503, 0},
		"a chunked body":  {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n100\r\n", "x", 503, 0},
		"a chunk's line":  {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1", ";", 503, 0},
		"a head":          {"POST / HTTP/1.1\r\nHost: x\r\nX-Long: ", "x", 503, 0},
		"a body in time":  {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n", "x", 200, 3},
		"one that is not": {"POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n", "x", 200, 0},
	} {
		t.Run(name, func(t *testing.T) {
			reading := make(chan struct{}, 1)
			s := &Server{Log: slog.New(slog.DiscardHandler), Limits: Defaults(), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/unread" {
					return
				}
				if _, err := io.ReadAll(r.Body); errors.Is(err, stop.ErrArriving) {
					w.WriteHeader(http.StatusServiceUnavailable)
				} else if err != nil {
					w.WriteHeader(http.StatusBadRequest)
				}
			})}
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			go func() { _ = s.Serve(listener) }()
			client, err := net.Dial("tcp", listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			_ = client.SetDeadline(time.Now().Add(20 * time.Second))
			if _, err := io.WriteString(client, c.says); err != nil {
				t.Fatal(err)
			}
			trickled := make(chan struct{})
			go func() {
				defer close(trickled)
				for sent, err := 1, error(nil); err == nil && (c.most == 0 || sent <= c.most); sent++ {
					_, err = io.WriteString(client, c.more)
					select {
					case reading <- struct{}{}:
					default:
					}
					time.Sleep(10 * time.Millisecond)
				}
			}()
			<-reading
			const budget = 800 * time.Millisecond
			ctx, cancel := context.WithTimeout(context.Background(), budget)
			defer cancel()
			if err := s.Shutdown(ctx); err != nil {
				t.Errorf("the server did not end in time: %v", err)
			}
			response, err := http.ReadResponse(bufio.NewReader(client), nil)
			if err != nil {
				t.Fatal(err)
			}
			answeredBefore := c.code == 200 // it may be, and then nobody knew of the stop
			if response.StatusCode != c.code || !response.Close && !answeredBefore {
				t.Errorf("answered with %s, close: %v", response.Status, response.Close)
			}
			if cut := s.CutOff(); (cut == stop.Cut{Arriving: 1}) != (c.code == 503) || cut.Answering != 0 {
				t.Errorf("%+v are counted as cut off", cut)
			}
			client.Close()
			<-trickled
		})
	}
}

// TestWhatHasNotBeenAnsweredInTimeIsEndedAndCounted: a client that does not read its answer, and one whose handler waits.
func TestWhatHasNotBeenAnsweredInTimeIsEndedAndCounted(t *testing.T) {
	ended := make(chan error, 2)
	s := &Server{Log: slog.New(slog.DiscardHandler), Limits: Defaults(), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var err error
		if r.URL.Path == "/large" {
			for piece := make([]byte, 1<<20); err == nil; {
				_, err = w.Write(piece)
			}
		} else {
			<-r.Context().Done()
			err = r.Context().Err()
		}
		ended <- err
	})}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve(listener) }()
	for _, path := range []string{"/large", "/waits", ""} { // and a connection that says nothing
		client, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		if path != "" {
			_, _ = io.WriteString(client, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n")
		}
	}
	for busyOnes := 0; busyOnes < 2; time.Sleep(time.Millisecond) {
		busyOnes = 0
		s.mu.Lock()
		for c := range s.conns {
			if c.state.Load() == busy {
				busyOnes++
			}
		}
		s.mu.Unlock()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it ended with %v", err)
	}
	if cut := s.CutOff(); cut != (stop.Cut{Answering: 2}) {
		t.Errorf("%+v are counted as cut off", cut)
	}
	for range 2 {
		select {
		case err := <-ended:
			if err == nil {
				t.Error("a handler was not told")
			}
		case <-time.After(10 * time.Second):
			t.Fatal("a handler waits for a client that was cut off")
		}
	}
}
