// Command linkecho answers every request with the same 64 bytes of JSON, over HTTP/1.1 and over the link: the origin of a
// benchmark, where a model would hide what the protocols cost. Below /stream/ its answers come bit by bit: see streams.go.
//
// It drains and ends on SIGTERM, as go_infer does.
//
//	linkecho -listen 127.0.0.1:9000 -listen 127.0.0.2:9000
package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"log"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"sluicegate/go_infer/internal/link"
)

const said = `{"predictions": [[0.01, 0.02, 0.91, 0.01, 0.05]], "model": "x"}` + "\n"

type addresses []string

func (a *addresses) String() string { return strings.Join(*a, ",") }

func (a *addresses) Set(value string) error {
	*a = append(*a, value)
	return nil
}

func echo(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return // the client has gone
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, said)
}

func main() {
	var listen addresses
	flag.Var(&listen, "listen", "address to listen on; may be given several times")
	drain := flag.Duration("drain", 5*time.Second, "how long answers under way may take after SIGTERM")
	flag.Parse()
	if len(listen) == 0 {
		log.Fatal("linkecho: -listen is missing")
	}
	streams := newStreams()
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/stream/") {
			streams.mux.ServeHTTP(w, r)
			return
		}
		echo(w, r)
	})
	links := link.New(answer, slog.New(slog.NewTextHandler(os.Stderr, nil)), nil)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if link.Wanted(r) {
			links.Offer(w, r)
			return
		}
		answer(w, r)
	})
	failed := make(chan error)
	for _, address := range listen {
		server := &http.Server{Addr: address, Handler: handler, ReadHeaderTimeout: 10 * time.Second}
		go func() { failed <- server.ListenAndServe() }()
	}
	leave := make(chan os.Signal, 1)
	signal.Notify(leave, syscall.SIGTERM)
	select {
	case err := <-failed:
		if !errors.Is(err, http.ErrServerClosed) {
			log.Fatalf("linkecho: %v", err)
		}
	case <-leave:
		links.Drain()
		ctx, cancel := context.WithTimeout(context.Background(), *drain)
		defer cancel()
		if err := links.Stop(ctx); err != nil {
			log.Printf("linkecho: %v", err)
		}
	}
}
