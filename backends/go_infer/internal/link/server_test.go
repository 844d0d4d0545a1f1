package link

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/stop"
)

// peer is the gateway's side of one link, frame by frame.
type peer struct {
	*testing.T
	net     net.Conn
	reader  *bufio.Reader
	decoder *decoder
	data    []byte
	hello   settings
}

type host struct {
	*Server
	http *httptest.Server
}

// serve starts a listener whose links are answered by handler.
func serve(t *testing.T, handler http.HandlerFunc) *host {
	t.Helper()
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	s := New(handler, quiet, func() Load { return Load{Capacity: 4} })
	h := &host{s, httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if Wanted(r) {
			s.Offer(w, r)
			return
		}
		handler(w, r)
	}))}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Stop(ctx); err != nil {
			t.Errorf("stop: %v; %d links, %d streams", err, s.Links(), s.Streams())
		}
		h.http.Close()
	})
	return h
}

func (h *host) upgrade(t *testing.T, offer string) (net.Conn, *bufio.Reader, *http.Response) {
	t.Helper()
	c, err := net.Dial("tcp", h.http.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(c, "GET /.sluice-link HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", offer)
	reader := bufio.NewReader(c)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c, reader, response
}

func (h *host) open(t *testing.T, mine settings) *peer {
	t.Helper()
	c, reader, response := h.upgrade(t, "sluice-link/2, "+Protocol)
	if response.StatusCode != 101 || response.Header.Get("Upgrade") != Protocol {
		t.Fatal(response.Status, response.Header)
	}
	p := &peer{T: t, net: c, reader: reader, decoder: newDecoder(silent, true)}
	f := p.next()
	if f.kind != typeHello || f.announced.maxStreams != maxStreams {
		t.Fatalf("%+v", f)
	}
	p.hello = f.announced
	p.send(appendHello(nil, mine))
	return p
}

func (p *peer) send(data []byte) {
	p.Helper()
	if _, err := p.net.Write(data); err != nil {
		p.Fatal(err)
	}
}

// next is the next frame that is no LOAD; its slices are the caller's.
func (p *peer) next() *frame {
	p.Helper()
	f, err := p.try()
	if err != nil {
		p.Fatal(err)
	}
	return f
}

func (p *peer) try() (*frame, error) {
	for {
		f := &frame{}
		taken, _, err := p.decoder.next(p.data, f)
		if err != nil {
			return nil, err
		}
		if taken > 0 {
			f.body = bytes.Clone(f.body)
			p.data = p.data[taken:]
			if f.kind == typeLoad {
				continue
			}
			return f, nil
		}
		buffer := make([]byte, 4096)
		n, err := p.reader.Read(buffer)
		if err != nil {
			return nil, err
		}
		p.data = append(p.data, buffer[:n]...)
	}
}

func (p *peer) want(kind byte, stream uint32, code uint16, body string) *frame {
	p.Helper()
	f := p.next()
	if f.kind != kind || f.stream != stream || f.code != code || string(f.body) != body {
		p.Fatalf("got type %d, stream %d, code %d, %q; want %d, %d, %d, %q", f.kind, f.stream, f.code, f.body, kind, stream, code, body)
	}
	return f
}

// gone reads the ERROR with this code, or just the end for 0.
func (p *peer) gone(code uint16) {
	p.Helper()
	for {
		f, err := p.try()
		switch {
		case err != nil && code == 0:
			return
		case err != nil:
			p.Fatalf("ended with %v and without ERROR %d", err, code)
		case f.kind == typeError && f.code == code:
			code = 0
		case f.kind == typeError:
			p.Fatalf("ERROR %d %q, want %d", f.code, f.body, code)
		}
	}
}

func get(stream uint32, target string, fields ...string) []byte {
	return appendRequest(nil, stream, 5_000_000, 0, 0, nil, appendRequestHead(nil, "GET", target, append([]string{"Host", "h"}, fields...)...), nil, true)
}

func post(stream uint32, target, body string, end bool) []byte {
	return appendRequest(nil, stream, 5_000_000, 0, 0, nil, appendRequestHead(nil, "POST", target, "Host", "h"), []byte(body), end)
}

func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), 400)
		return
	}
	w.Header()["Content-Type"] = []string{"text/plain"}
	fmt.Fprintf(w, "%s %s %s %s %d ", r.Method, r.RequestURI, r.Host, r.Header.Get("X-Odd"), r.ContentLength)
	_, _ = w.Write(body)
}

func TestRequestsAndAnswers(t *testing.T) {
	p := serve(t, echo).open(t, silent)
	p.send(get(1, "/a?b=c", "X-Odd", "odd"))
	f := p.want(typeResponse, 1, 200, "GET /a?b=c h odd 0 ")
	if !f.end || f.head.fields.Get("Content-Type") != "text/plain" {
		t.Errorf("%+v", f)
	}
	p.send(append(post(2, "/b", "body", true), post(3, "/c", "", false)...))
	p.want(typeResponse, 2, 200, "POST /b h  4 body")
	p.send(append(appendData(nil, 3, []byte("in "), false), appendData(nil, 3, []byte("pieces"), true)...))
	p.want(typeResponse, 3, 200, "POST /c h  -1 in pieces")
	p.send(appendPing(nil, typePing, []byte("are you?")))
	p.want(typePong, 0, 0, "are you?")
	p.send(append(appendHeader(nil, 3, optional|9, 7, 7, 7), "new"...)) // passed over
	p.send(get(9, "/d"))
	p.want(typeResponse, 9, 200, "GET /d h  0 ")
}

func TestThePriorityOfAFrameIsInTheContext(t *testing.T) {
	p := serve(t, func(w http.ResponseWriter, r *http.Request) {
		class, _ := r.Context().Value(batch.ContextKey).(batch.Class)
		fmt.Fprint(w, class, " ", r.Context().Value("other"))
	}).open(t, silent)
	head := appendRequestHead(nil, "GET", "/")
	for i, c := range []struct {
		priority uint16
		says     string
	}{{0, "default <nil>"}, {1, "critical <nil>"}, {7, "critical <nil>"}, {0, "default <nil>"}} {
		stream := uint32(i + 1)
		p.send(appendRequest(nil, stream, 0, c.priority, 0, nil, head, nil, true))
		p.want(typeResponse, stream, 200, c.says)
	}
}

func TestRememberedHeads(t *testing.T) {
	p := serve(t, echo).open(t, silent)
	h := appendRequestHead(nil, "GET", "/a", "Host", "h")
	p.send(appendRequest(nil, 1, 0, 0, 5, nil, h, nil, true))
	p.want(typeResponse, 1, 200, "GET /a h  0 ")
	p.send(appendRequest(nil, 2, 0, 0, 5, nil, nil, nil, true))
	p.want(typeResponse, 2, 200, "GET /a h  0 ")
	if len(p.decoder.heads) != 1 {
		t.Errorf("%d response heads are remembered", len(p.decoder.heads))
	}
}

func TestHeadAndBodilessAnswers(t *testing.T) {
	p := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/204" {
			w.WriteHeader(204)
		}
		_, _ = io.WriteString(w, "five!")
	}).open(t, silent)
	p.send(appendRequest(nil, 1, 0, 0, 0, nil, appendRequestHead(nil, "HEAD", "/"), nil, true))
	f := p.want(typeResponse, 1, 200, "")
	if !bytes.Contains(f.extra, []byte("\x0a\x01\x005")) {
		t.Errorf("no content-length in %q", f.extra)
	}
	p.send(get(2, "/204"))
	p.want(typeResponse, 2, 204, "")
}

func TestLargeBodiesFollowTheWindows(t *testing.T) {
	p := serve(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }).open(t, settings{
		maxFrame: minMaxFrame, streamWindow: chunk, connectionWindow: 2 * chunk, maxHead: 1024, slots: 0})
	const size = 3<<20 + 17
	go func() { // in pieces as credit allows: 1 MiB at first, and what the server grants is enough because it reads
		_, _ = p.net.Write(post(1, "/", "", false))
		sent := 0
		for sent < 1<<20 {
			_, _ = p.net.Write(appendData(nil, 1, make([]byte, chunk), false))
			sent += chunk
		}
	}()
	sent, got, credit := 1<<20, 0, 0
	for got < size {
		f := p.next()
		switch f.kind {
		case typeResponse, typeData:
			got += len(f.body)
			if len(f.body) > chunk {
				t.Fatalf("a piece of %d bytes", len(f.body))
			}
			if len(f.body) > 0 {
				p.send(appendWindow(appendWindow(nil, 1, uint32(len(f.body))), 0, uint32(len(f.body))))
			}
		case typeWindow:
			if f.stream != 1 {
				continue
			}
			for credit += int(f.credit); credit > 0 && sent < size; {
				n := min(credit, chunk, size-sent)
				sent, credit = sent+n, credit-n
				p.send(appendData(nil, 1, make([]byte, n), sent == size))
			}
		default:
			t.Fatalf("%+v", f)
		}
	}
}

func TestDeadlinesAndCancelsEndTheContext(t *testing.T) {
	ended := make(chan error, 3)
	p := serve(t, func(w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		ended <- context.Cause(r.Context())
		w.WriteHeader(504)
	}).open(t, silent)
	p.send(appendRequest(nil, 1, 20_000, 0, 0, nil, appendRequestHead(nil, "GET", "/"), nil, true))
	p.want(typeResponse, 1, 504, "")
	if err := <-ended; !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	p.send(append(get(2, "/"), appendCancel(nil, 2, cancelUnwanted)...))
	p.want(typeCancel, 2, cancelUnwanted, "")
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	default: // cancelled before its handler began
	}
	p.send(appendCancel(nil, 2, cancelUnwanted)) // late: passed over
	p.send(appendRequest(nil, 3, 0, 0, 0, nil, appendRequestHead(nil, "GET", "/"), nil, true))
	time.Sleep(20 * time.Millisecond)
	p.net.Close()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestACancelWakesWhoReadsAndWhoSends(t *testing.T) {
	p := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			_, _ = io.ReadAll(r.Body)
		}
		_, _ = w.Write(make([]byte, 1<<20))
	}).open(t, settings{maxFrame: minMaxFrame, streamWindow: chunk, connectionWindow: chunk, maxHead: 1024})
	p.send(post(1, "/", "", false))
	p.send(appendCancel(nil, 1, cancelDeadline))
	p.want(typeCancel, 1, cancelDeadline, "")
	p.send(get(2, "/"))
	if f := p.next(); f.kind != typeResponse || len(f.body) != chunk {
		t.Fatalf("%+v", f)
	}
	p.send(appendCancel(nil, 2, cancelUnwanted))
	p.want(typeCancel, 2, cancelUnwanted, "")
}

func TestAPanicEndsItsStreamAlone(t *testing.T) {
	p := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/panic":
			panic("on purpose")
		case "/late":
			_, _ = io.WriteString(w, "some")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		echo(w, r)
	}).open(t, silent)
	p.send(get(1, "/panic"))
	p.want(typeCancel, 1, cancelFailed, "")
	p.send(get(2, "/late"))
	p.want(typeResponse, 2, 200, "some")
	p.want(typeCancel, 2, cancelFailed, "")
	p.send(get(3, "/fine"))
	p.want(typeResponse, 3, 200, "GET /fine h  0 ")
}

func TestATargetThatIsNoURL(t *testing.T) {
	p := serve(t, echo).open(t, silent)
	p.send(get(1, "/%zz"))
	p.want(typeResponse, 1, 400, "the target is not a URL\n")
}

func TestDrainServesWhatCrossesAndStopRefusesIt(t *testing.T) {
	release := make(chan struct{})
	h := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-release
		}
		echo(w, r)
	})
	p := h.open(t, silent)
	p.send(get(1, "/slow"))
	p.send(get(2, "/"))
	p.want(typeResponse, 2, 200, "GET / h  0 ")
	h.Drain()
	p.want(typeDrain, 0, 0, "")
	p.send(get(3, "/"))
	p.want(typeResponse, 3, 200, "GET / h  0 ")
	if _, _, response := h.upgrade(t, Protocol); response.StatusCode != 503 {
		t.Error(response.Status)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- h.Stop(context.Background()) }()
	for refused := uint32(4); ; refused++ { // until Stop has reached this link
		p.send(get(refused, "/"))
		if f := p.next(); f.kind == typeCancel && f.code == cancelRefused && f.stream == refused {
			break
		}
	}
	close(release)
	p.want(typeResponse, 1, 200, "GET /slow h  0 ")
	p.gone(0)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestStopRefusesWhatHasNotArrivedWhenItsTimeIsNearlyUp(t *testing.T) {
	h := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); errors.Is(err, stop.ErrArriving) {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	p := h.open(t, silent)
	p.send(post(1, "/", "some of it", false))
	for h.Streams() == 0 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 400*time.Millisecond)
	defer cancel()
	if err := h.Stop(ctx); err != nil {
		t.Errorf("the link did not end in time: %v", err)
	}
	p.want(typeResponse, 1, 503, "")
	if cut := h.CutOff(); cut != (stop.Cut{Arriving: 1}) {
		t.Errorf("%+v are counted as cut off", cut)
	}
}

func TestStopGivesUpWhenItsTimeIsUp(t *testing.T) {
	h := serve(t, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	p := h.open(t, silent)
	p.send(get(1, "/"))
	for h.Streams() == 0 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := h.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if cut := h.CutOff(); cut != (stop.Cut{Answering: 1}) {
		t.Errorf("%+v are counted as cut off", cut)
	}
	p.gone(0)
}

func TestAnotherVersionIsAnOrdinaryRequest(t *testing.T) {
	if _, _, response := serve(t, echo).upgrade(t, "sluice-link/9, websocket"); response.StatusCode != 200 {
		t.Error(response.Status)
	}
}

func TestHostilePeers(t *testing.T) {
	small := settings{maxFrame: minMaxFrame, streamWindow: chunk, connectionWindow: chunk, maxHead: 1024}
	for name, c := range map[string]struct {
		code uint16
		data func(p *peer) []byte
	}{
		"garbage": {errSize, func(*peer) []byte { return []byte("GET / HTTP/1.1\r\n\r\n") }},
		"a frame too large": {errSize, func(p *peer) []byte {
			return appendHeader(nil, int(p.hello.maxFrame)+1, typeData, 0, 0, 1)
		}},
		"a stream's number again": {errStream, func(*peer) []byte { return append(get(5, "/"), get(5, "/")...) }},
		"a stream's number back":  {errStream, func(*peer) []byte { return append(get(5, "/"), get(4, "/")...) }},
		"data for nobody":         {errStream, func(*peer) []byte { return appendData(nil, 8, []byte("x"), false) }},
		"credit for nobody":       {errStream, func(*peer) []byte { return appendWindow(nil, 8, 1) }},
		"a cancel for nobody":     {errStream, func(*peer) []byte { return appendCancel(nil, 8, 1) }},
		"more credit than can be": {errFlow, func(*peer) []byte { return appendWindow(nil, 0, maxWindow) }},
		"a stream's window": {errFlow, func(p *peer) []byte {
			data := post(1, "/slow", "", false)
			for range int(p.hello.streamWindow)/chunk + 1 {
				data = appendData(data, 1, make([]byte, chunk), false)
			}
			return data
		}},
		"the connection's window": {errFlow, func(p *peer) (data []byte) {
			for stream := range p.hello.connectionWindow/chunk + 1 {
				data = append(data, post(stream+1, "/slow", strings.Repeat("x", chunk), true)...)
			}
			return data
		}},
		"too many streams": {errStream, func(p *peer) (data []byte) {
			for stream := range p.hello.maxStreams + 1 {
				data = append(data, get(stream+1, "/slow")...)
			}
			return data
		}},
		"data after the end": {errStream, func(*peer) []byte {
			return appendData(appendData(post(1, "/slow", "", false), 1, nil, true), 1, []byte("x"), false)
		}},
		"no sense at all after a good start": {errProtocol, func(*peer) []byte { return append(get(1, "/"), bytes.Repeat([]byte{0}, 64)...) }},
	} {
		t.Run(name, func(t *testing.T) {
			h := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/slow" {
					<-r.Context().Done()
					return
				}
				echo(w, r)
			})
			good, bad := h.open(t, silent), h.open(t, small)
			data := c.data(bad)
			go func() { _, _ = bad.net.Write(data) }() // the server may well stop reading in the middle
			bad.gone(c.code)
			good.send(get(1, "/"))
			good.want(typeResponse, 1, 200, "GET / h  0 ")
			if h.Violations() != 1 {
				t.Errorf("%d violations", h.Violations())
			}
		})
	}
}

func TestAFloodOfPingsFromWhoNeverReadsIsBounded(t *testing.T) {
	h := serve(t, echo)
	p := h.open(t, silent)
	pings := bytes.Repeat(appendPing(nil, typePing, []byte("12345678")), 4096)
	for range 4 * maxQueued / len(pings) {
		if _, err := p.net.Write(pings); err != nil {
			return // the server has had enough
		}
	}
	for h.Links() > 0 {
		time.Sleep(time.Millisecond)
	}
}

func TestThousandStreamsAtOnceEachGetTheirOwnAnswer(t *testing.T) {
	var most, now atomic.Int64
	gate := make(chan struct{})
	h := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if n := now.Add(1); n == 1000 {
			most.Store(n)
			close(gate)
		}
		<-gate
		echo(w, r)
	})
	p := h.open(t, silent)
	go func() {
		for stream := uint32(1); stream <= 1000; stream++ {
			_, _ = p.net.Write(post(stream, fmt.Sprintf("/%d", stream), fmt.Sprint("body ", stream), true))
		}
	}()
	seen := map[uint32]bool{}
	for range 1000 {
		f := p.next()
		body := fmt.Sprint("body ", f.stream)
		if want := fmt.Sprintf("POST /%d h  %d %s", f.stream, len(body), body); string(f.body) != want || seen[f.stream] {
			t.Fatalf("stream %d: %q", f.stream, f.body)
		}
		seen[f.stream] = true
	}
	if most.Load() != 1000 {
		t.Error("they were not at once")
	}
}

func TestLoadIsReported(t *testing.T) {
	h := serve(t, echo)
	p := h.open(t, silent)
	p.send(get(1, "/"))
	loads := 0
	_ = p.net.SetReadDeadline(time.Now().Add(2 * time.Second))
	for loads == 0 {
		f := &frame{}
		taken, _, err := p.decoder.next(p.data, f)
		if err != nil {
			t.Fatal(err)
		}
		if taken == 0 {
			buffer := make([]byte, 4096)
			n, err := p.reader.Read(buffer)
			if err != nil {
				t.Fatal(err)
			}
			p.data = append(p.data, buffer[:n]...)
			continue
		}
		p.data = p.data[taken:]
		if f.kind == typeLoad {
			loads++
			if f.load.Capacity != 4 {
				t.Errorf("%+v", f.load)
			}
		}
	}
}

// pieces echoes as the body comes, and flushes each piece.
func pieces(w http.ResponseWriter, r *http.Request) {
	buffer := make([]byte, 100)
	for {
		n, err := r.Body.Read(buffer)
		if _, failed := w.Write(buffer[:n]); failed != nil || err != nil {
			return
		}
		w.(http.Flusher).Flush()
	}
}

// soon is a handler of which every other request is answered in two steps, the second in another goroutine.
type soon http.HandlerFunc

func (h soon) ServeHTTP(w http.ResponseWriter, r *http.Request) { h(w, r) }

func (h soon) Start(w http.ResponseWriter, r *http.Request, resume func(answer func()) (after func())) bool {
	if w.(*stream).id%2 == 0 {
		return false
	}
	go func() { call(resume(func() { h(w, r) })) }()
	return true
}

// FuzzServer feeds a link anything at all: it must end, and leave no stream behind.
func FuzzServer(f *testing.F) {
	for _, s := range load[session](f, "frames.json") {
		var data []byte
		for _, d := range s.Frames {
			data = append(data, unhex(f, d.Hex)...)
		}
		f.Add(data)
	}
	f.Add(append(appendHello(nil, silent), get(1, "/")...))
	f.Add(appendData(append(appendHello(nil, silent), post(1, "/", "x", false)...), 1, []byte("y"), true))
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := New(soon(pieces), quiet, func() Load { return Load{} })
		ours, theirs := net.Pipe()
		c := newConn(s, ours)
		var group sync.WaitGroup
		group.Add(1)
		go func() {
			defer group.Done()
			_, _ = io.Copy(io.Discard, theirs)
		}()
		go func() {
			_, _ = theirs.Write(data)
			theirs.Close()
		}()
		c.run(nil)
		group.Wait()
		for s.Streams() > 0 {
			time.Sleep(100 * time.Microsecond)
		}
		s.dismiss()
	})
}
