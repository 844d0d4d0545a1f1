// Command gonet is net/http as a server; what each path answers is told in ../with_aiohttp.py.
package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
)

func main() {
	answer := func(path string, do http.HandlerFunc) {
		http.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Peer", r.RemoteAddr)
			do(w, r)
		})
	}
	answer("/hello", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello\n") })
	answer("/chunked", func(w http.ResponseWriter, _ *http.Request) {
		for number := range 16 {
			fmt.Fprint(w, strings.Repeat(string(rune('a'+number)), 65536))
			w.(http.Flusher).Flush()
		}
	})
	answer("/digest", func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		size, err := io.Copy(sum, r.Body)
		if err != nil {
			panic(err)
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"size": size, "sha256": fmt.Sprintf("%x", sum.Sum(nil))})
	})
	answer("/nothing", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
