// Command gonet is net/http as a client; what it prints is told in ../common.py.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
	"strings"
	"time"
)

type seen = map[string]any

var (
	base, kept = os.Args[1], os.Args[2]
	small      = []byte(`{"instances":[1,2,3]}`)
	large      = make([]byte, 5<<20)
	client     = &http.Client{
		Timeout:   20 * time.Second,
		Transport: &http.Transport{ExpectContinueTimeout: 10 * time.Second, DisableCompression: true},
	}
)

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// ask sends one request and reads the whole answer.
func ask(method, url string, body io.Reader, header ...string) (*http.Response, []byte) {
	request, err := http.NewRequest(method, url, body)
	if err != nil {
		panic(err)
	}
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	answer, err := client.Do(request)
	if err != nil {
		panic(err)
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		panic(err)
	}
	return answer, data
}

func told(data []byte) (value seen) {
	if err := json.Unmarshal(data, &value); err != nil {
		panic(err)
	}
	return value
}

func upload(body io.Reader, header ...string) seen {
	answer, data := ask("POST", base+"/o/digest", body, header...)
	return seen{"status": answer.StatusCode, "told": told(data)}
}

func download(query string) seen {
	answer, data := ask("GET", base+"/o/large"+query, nil)
	length := any(nil)
	if answer.ContentLength >= 0 {
		length = fmt.Sprint(answer.ContentLength)
	}
	return seen{"status": answer.StatusCode, "sha256": digest(data), "length": length}
}

func expect() seen {
	asked := []int{}
	trace := &httptrace.ClientTrace{Got100Continue: func() { asked = append(asked, 100) }}
	ctx := httptrace.WithClientTrace(context.Background(), trace)
	request, _ := http.NewRequestWithContext(ctx, "POST", base+"/o/digest", bytes.NewReader(large))
	request.Header.Set("Expect", "100-continue")
	answer, err := client.Do(request)
	if err != nil {
		panic(err)
	}
	defer answer.Body.Close()
	data, _ := io.ReadAll(answer.Body)
	return seen{"status": answer.StatusCode, "told": told(data), "before": asked}
}

// counted knows how much was read of a body that is too large.
type counted struct {
	left, read int64
}

func (c *counted) Read(into []byte) (int, error) {
	if c.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(into)), c.left)
	c.left -= n
	c.read += n
	return int(n), nil
}

func refused() seen {
	body := &counted{left: 20 << 20}
	request, _ := http.NewRequest("POST", base+"/o/digest", body)
	request.ContentLength = body.left
	request.Header.Set("Expect", "100-continue")
	answer, err := client.Do(request)
	if err != nil {
		panic(err)
	}
	answer.Body.Close()
	return seen{"status": answer.StatusCode, "sent": body.read}
}

func keepAlive() seen {
	statuses := []int{}
	for range 6 {
		answer, _ := ask("GET", kept+"/o/hello", nil)
		statuses = append(statuses, answer.StatusCode)
	}
	return seen{"statuses": statuses}
}

func redirect() seen {
	quiet := *client
	quiet.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	first, err := quiet.Get(base + "/o/redirect")
	if err != nil {
		panic(err)
	}
	first.Body.Close()
	_, data := ask("GET", base+"/o/redirect", nil)
	return seen{"status": first.StatusCode, "location": first.Header.Get("Location"), "body": string(data)}
}

func earlyClose() seen {
	answer, err := client.Get(base + "/o/endless")
	if err != nil {
		panic(err)
	}
	some, _ := io.ReadAtLeast(answer.Body, make([]byte, 100_000), 100_000)
	answer.Body.Close()
	return seen{"status": answer.StatusCode, "some": some > 0}
}

func events() seen {
	answer, err := client.Get(base + "/o/events")
	if err != nil {
		panic(err)
	}
	defer answer.Body.Close()
	data, times := []string{}, []float64{}
	began := time.Now()
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			data = append(data, text)
			times = append(times, time.Since(began).Seconds())
		}
	}
	return seen{"status": answer.StatusCode, "type": answer.Header.Get("Content-Type"), "data": data, "times": times}
}

func tell(name string, do func() seen) {
	var line seen
	func() {
		defer func() {
			if problem := recover(); problem != nil {
				line = seen{"error": fmt.Sprint(problem)}
			}
		}()
		line = do()
	}()
	line["case"] = name
	text, _ := json.Marshal(line)
	fmt.Println(string(text))
}

func main() {
	for i := range large {
		large[i] = byte(i % 251)
	}
	tell("get", func() seen {
		answer, data := ask("GET", base+"/o/hello", nil)
		return seen{"status": answer.StatusCode, "body": string(data), "type": answer.Header.Get("Content-Type")}
	})
	tell("head", func() seen {
		answer, data := ask("HEAD", base+"/o/hello", nil)
		return seen{"status": answer.StatusCode, "body": string(data), "length": answer.Header.Get("Content-Length")}
	})
	tell("post", func() seen { return upload(bytes.NewReader(small), "Content-Type", "application/json") })
	tell("upload", func() seen { return upload(bytes.NewReader(large)) })
	tell("upload-chunked", func() seen { return upload(io.MultiReader(bytes.NewReader(large))) })
	tell("expect", expect)
	tell("expect-refused", refused)
	tell("download", func() seen { return download("") })
	tell("download-chunked", func() seen { return download("?chunked") })
	tell("keep-alive", keepAlive)
	tell("gzip", func() seen {
		answer, data := ask("GET", base+"/o/gzip", nil, "Accept-Encoding", "gzip")
		return seen{"status": answer.StatusCode, "sha256": digest(data), "encoding": answer.Header.Get("Content-Encoding")}
	})
	tell("204", func() seen {
		answer, data := ask("GET", base+"/o/nothing", nil)
		return seen{"status": answer.StatusCode, "body": string(data)}
	})
	tell("304", func() seen {
		answer, data := ask("GET", base+"/o/tagged", nil, "If-None-Match", `"v1"`)
		return seen{"status": answer.StatusCode, "body": string(data), "etag": answer.Header.Get("ETag")}
	})
	tell("404", func() seen {
		answer, data := ask("GET", base+"/no/such", nil)
		return seen{"status": answer.StatusCode, "type": answer.Header.Get("Content-Type"), "told": told(data)["status"]}
	})
	tell("redirect", redirect)
	tell("early-close", earlyClose)
	tell("events", events)
}
