package http1

import (
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
)

// BenchmarkExchange is a small POST over loopback, the client's side (two system calls and no more) included; cpu-us is of the process.
func BenchmarkExchange(b *testing.B) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var scrap [512]byte
		_, _ = io.ReadFull(r.Body, scrap[:400])
		w.Header()["Content-Type"] = []string{"application/octet-stream"}
		_, _ = w.Write(scrap[:200])
	})
	b.Run("http1", func(b *testing.B) {
		_, address := run(b, handler)
		exchange(b, address)
	})
	b.Run("net_http", func(b *testing.B) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		s := &http.Server{Handler: handler}
		go func() { _ = s.Serve(listener) }()
		defer s.Close()
		exchange(b, listener.Addr().String())
	})
}

func exchange(b *testing.B, address string) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	request := []byte("POST /v2/models/digits/infer HTTP/1.1\r\nHost: 127.0.0.1\r\nInference-Header-Content-Length: 144\r\nContent-Length: 400\r\n\r\n" +
		strings.Repeat("x", 400))
	answer := make([]byte, 4096)
	b.ReportAllocs()
	b.ResetTimer()
	begun := cpu()
	for range b.N {
		if _, err := conn.Write(request); err != nil {
			b.Fatal(err)
		}
		if n, err := conn.Read(answer); err != nil || !strings.HasPrefix(string(answer[:15]), "HTTP/1.1 200 OK") || n < 200 {
			b.Fatal(n, err)
		}
	}
	b.ReportMetric(float64(cpu()-begun)/1e3/float64(b.N), "cpu-us/op")
}

func cpu() int64 {
	var used syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	return used.Utime.Nano() + used.Stime.Nano()
}
