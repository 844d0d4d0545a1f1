// Command goproxy is the reverse proxy that Go's standard library gives, as a peer in the benchmark:
// net/http on both sides, a keep-alive pool wide enough for every client, and nothing else.
//
//	goproxy -listen 127.0.0.1:8080 -origin http://127.0.0.1:9000
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os/signal"
	"syscall"
	"time"
)

// idlePerHost is above the benchmark's 64 clients: a smaller pool would measure connecting.
const idlePerHost = 256

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address to listen on")
	origin := flag.String("origin", "", "URL of the origin")
	flag.Parse()
	target, err := url.Parse(*origin)
	if err != nil || target.Host == "" {
		log.Fatalf("goproxy: -origin %q is not a URL", *origin)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.SetXForwarded()
		},
		Transport: &http.Transport{
			MaxIdleConns:        idlePerHost,
			MaxIdleConnsPerHost: idlePerHost,
			IdleConnTimeout:     90 * time.Second,
			DisableCompression:  true,
		},
	}
	server := &http.Server{Addr: *listen, Handler: proxy, ReadHeaderTimeout: 10 * time.Second}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatalf("goproxy: %v", err)
	}
}
