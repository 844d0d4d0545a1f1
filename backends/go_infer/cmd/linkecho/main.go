// Command linkecho answers every request with the same 64 bytes of JSON, over HTTP/1.1 and over the link: the origin of a
// benchmark, where a model would hide what the protocols cost.
//
//	linkecho -listen 127.0.0.1:9000 -listen 127.0.0.2:9000
package main

import (
	"errors"
	"flag"
	"io"
	"log"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"sluicegate/go_infer/internal/link"
)

const answer = `{"predictions": [[0.01, 0.02, 0.91, 0.01, 0.05]], "model": "x"}` + "\n"

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
	_, _ = io.WriteString(w, answer)
}

func main() {
	var listen addresses
	flag.Var(&listen, "listen", "address to listen on; may be given several times")
	flag.Parse()
	if len(listen) == 0 {
		log.Fatal("linkecho: -listen is missing")
	}
	links := link.New(http.HandlerFunc(echo), slog.New(slog.NewTextHandler(os.Stderr, nil)), nil)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if link.Wanted(r) {
			links.Offer(w, r)
			return
		}
		echo(w, r)
	})
	failed := make(chan error)
	for _, address := range listen {
		server := &http.Server{Addr: address, Handler: handler, ReadHeaderTimeout: 10 * time.Second}
		go func() { failed <- server.ListenAndServe() }()
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		log.Fatalf("linkecho: %v", err)
	}
}
