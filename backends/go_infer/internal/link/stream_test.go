package link

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// roomy lets one stream take a chunk, and all of them together as much as a test may want.
var roomy = settings{maxFrame: minMaxFrame, streamWindow: chunk, connectionWindow: 1 << 30, maxHead: 1024}

func TestWhatIsFlushedLeavesBeforeMoreIsWritten(t *testing.T) {
	next := make(chan struct{})
	p := serve(t, func(w http.ResponseWriter, r *http.Request) {
		for _, event := range []string{"one", "two", "three"} {
			_, _ = io.WriteString(w, event)
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
			<-next
		}
	}).open(t, silent)
	p.send(get(1, "/"))
	if f := p.want(typeResponse, 1, 200, "one"); f.end {
		t.Error("it has ended")
	}
	next <- struct{}{}
	p.want(typeData, 1, 0, "two")
	next <- struct{}{}
	p.want(typeData, 1, 0, "three")
	next <- struct{}{}
	if f := p.want(typeData, 1, 0, ""); !f.end {
		t.Error("it has not ended")
	}
}

func TestAStatedLengthIsToldWithAnAnswerInPiecesAndKept(t *testing.T) {
	failed := make(chan error, 5)
	p := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", r.URL.Query().Get("stated"))
		_, _ = io.WriteString(w, "some")
		if r.URL.Path == "/pieces" {
			w.(http.Flusher).Flush()
		}
		_, err := io.WriteString(w, " more")
		failed <- err
	}).open(t, silent)
	p.send(get(1, "/pieces?stated=9"))
	if f := p.want(typeResponse, 1, 200, "some"); !bytes.Contains(f.extra, []byte("\x0a\x01\x009")) {
		t.Errorf("no content-length in %q", f.extra)
	}
	p.want(typeData, 1, 0, " more")
	p.send(get(2, "/whole?stated=9"))
	if f := p.want(typeResponse, 2, 200, "some more"); len(f.extra) > 0 {
		t.Errorf("END says how long it is, and %q does too", f.extra)
	}
	p.send(get(3, "/pieces?stated=nonsense"))
	if f := p.want(typeResponse, 3, 200, "some"); len(f.extra) > 0 {
		t.Errorf("%q", f.extra)
	}
	p.want(typeData, 3, 0, " more")
	for range 3 {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	p.send(get(4, "/pieces?stated=10"))
	p.want(typeResponse, 4, 200, "some")
	<-failed
	p.want(typeCancel, 4, cancelFailed, "")
	p.send(get(5, "/pieces?stated=8"))
	p.want(typeResponse, 5, 200, "some")
	if err := <-failed; !errors.Is(err, http.ErrContentLength) {
		t.Error(err)
	}
	p.want(typeCancel, 5, cancelFailed, "")
}

func TestAnAnswerThatHasBegunOutlastsItsDeadline(t *testing.T) {
	p := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if _, ok := r.Context().Deadline(); !ok {
			t.Error("no deadline at first")
		}
		w.(http.Flusher).Flush()
		if _, ok := r.Context().Deadline(); ok {
			t.Error("a deadline still")
		}
		select {
		case <-r.Context().Done():
			t.Error(r.Context().Err())
		case <-time.After(60 * time.Millisecond):
		}
		_, _ = io.WriteString(w, "late")
	}).open(t, silent)
	p.send(appendRequest(nil, 1, 20_000, 0, 0, nil, appendRequestHead(nil, "GET", "/"), nil, true))
	p.want(typeResponse, 1, 200, "")
	p.want(typeData, 1, 0, "late")
}

// zeros writes for as long as it may, and tells how that ended.
func zeros(ended chan error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 10_000)); err != nil {
				ended <- errors.Join(err, r.Context().Err())
				return
			}
		}
	}
}

func TestASlowReaderHoldsUpItsOwnStreamAlone(t *testing.T) {
	ended := make(chan error, 2)
	p := serve(t, zeros(ended)).open(t, roomy)
	p.send(append(get(1, "/slow"), get(2, "/fast")...))
	got := map[uint32]int{}
	for got[2] < 16<<20 {
		f := p.next()
		got[f.stream] += len(f.body)
		if f.stream == 2 && len(f.body) > 0 {
			p.send(appendWindow(nil, 2, uint32(len(f.body))))
		}
	}
	if got[1] != chunk {
		t.Errorf("%d bytes came on the stream that is not read", got[1])
	}
	p.send(appendWindow(appendCancel(nil, 2, cancelUnwanted), 1, 100))
	for got[1] < chunk+100 {
		f := p.next()
		got[f.stream] += len(f.body)
	}
	p.send(appendCancel(nil, 1, cancelUnwanted))
	for range 2 {
		if err := <-ended; !errors.Is(err, errStopped) || !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}

func TestStreamsEndWithTheirLink(t *testing.T) {
	ended := make(chan error, 1)
	h := serve(t, zeros(ended))
	p := h.open(t, roomy)
	p.send(get(1, "/"))
	p.next()
	p.net.Close()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestDrainLetsAStreamEndAsItBegan(t *testing.T) {
	next := make(chan struct{})
	h := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "first")
		w.(http.Flusher).Flush()
		<-next
		_, _ = io.WriteString(w, "last")
	})
	p := h.open(t, silent)
	p.send(get(1, "/"))
	p.want(typeResponse, 1, 200, "first")
	h.Drain()
	p.want(typeDrain, 0, 0, "")
	stopped := make(chan error, 1)
	go func() { stopped <- h.Stop(context.Background()) }()
	next <- struct{}{}
	p.want(typeData, 1, 0, "last")
	p.gone(0)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestAStreamsLengthIsNotItsServiceTime(t *testing.T) {
	h := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		time.Sleep(100 * time.Millisecond)
	})
	p := h.open(t, silent)
	p.send(get(1, "/"))
	p.want(typeResponse, 1, 200, "")
	p.want(typeData, 1, 0, "")
	for h.Streams() > 0 {
		time.Sleep(time.Millisecond)
	}
	if took := time.Duration(h.service.Load()); took > 50*time.Millisecond {
		t.Error(took)
	}
}

// FuzzStreams opens streams, gives credit and cancels as the fuzzer says: no stream may send more than it was allowed or other bytes than
// were written, and each has exactly one last word.
func FuzzStreams(f *testing.F) {
	f.Add([]byte("\x00\x01\x02\x03\x04\x05\x06\x07"))
	f.Add([]byte("\x00\x04\x00\x08\x01\x05\x01\x09\x01\x0d\x02\x03"))
	f.Add(bytes.Repeat([]byte{0, 1, 5, 2}, 30))
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 200 {
			t.Skip()
		}
		// The path says how much is written at a time, and how often: the n-th byte of the answer is n.
		s := New(soon(func(w http.ResponseWriter, r *http.Request) {
			parts := strings.Split(r.URL.Path, "/")
			size, _ := strconv.Atoi(parts[1])
			times, _ := strconv.Atoi(parts[2])
			at := 0
			for range times {
				piece := make([]byte, size)
				for i := range piece {
					piece[i] = byte(at + i)
				}
				if _, err := w.Write(piece); err != nil {
					return
				}
				at += size
				if size%2 == 0 {
					w.(http.Flusher).Flush()
				}
			}
		}), quiet, nil)
		ours, theirs := net.Pipe()
		c := newConn(s, ours)
		go c.run(nil)
		mine := settings{maxFrame: minMaxFrame, streamWindow: chunk, connectionWindow: 2 * chunk, maxHead: 1024}
		data := appendHello(nil, mine)
		allowed := map[uint32]int{0: int(mine.connectionWindow)}
		want := map[uint32]int{}
		cancelled := map[uint32]bool{}
		last := uint32(0)
		for i := 0; i+1 < len(script); i += 2 {
			argument := int(script[i+1])
			stream := uint32(argument)%max(last, 1) + 1
			switch script[i] % 4 {
			case 0:
				last++
				allowed[last] = int(mine.streamWindow)
				want[last] = argument * 300 * (argument%5 + 1)
				data = append(data, get(last, "/"+strconv.Itoa(argument*300)+"/"+strconv.Itoa(argument%5+1))...)
			case 1:
				if stream <= last {
					allowed[stream] += 1 + argument*argument
					data = appendWindow(data, stream, uint32(1+argument*argument))
				}
			case 2:
				allowed[0] += 1 + argument*1000
				data = appendWindow(data, 0, uint32(1+argument*1000))
			case 3:
				if stream <= last {
					cancelled[stream] = true
					data = appendCancel(data, stream, cancelUnwanted)
				}
			}
		}
		for stream := range last { // whoever still waits for credit is given up
			cancelled[stream+1] = cancelled[stream+1] || want[stream+1] > allowed[stream+1] || want[stream+1] > chunk
			if cancelled[stream+1] {
				data = appendCancel(data, stream+1, cancelUnwanted)
			}
		}
		allowed[0] += 1 << 30
		data = appendWindow(data, 0, 1<<30)
		go func() { _, _ = theirs.Write(data) }()
		_ = theirs.SetReadDeadline(time.Now().Add(20 * time.Second))
		p := &peer{T: t, net: theirs, decoder: newDecoder(silent, true)}
		p.data = appendHello(nil, s.mine)
		got, ended := map[uint32]int{}, map[uint32]bool{}
		for len(ended) < int(last) {
			f := &frame{}
			taken, _, err := p.decoder.next(p.data, f)
			if err != nil {
				t.Fatal(err)
			}
			if taken == 0 {
				buffer := make([]byte, 64<<10)
				n, err := theirs.Read(buffer)
				if err != nil {
					t.Fatalf("%v; %d of %d streams have ended", err, len(ended), last)
				}
				p.data = append(p.data, buffer[:n]...)
				continue
			}
			if f.stream > 0 && ended[f.stream] {
				t.Fatalf("a frame of type %d behind the last word on stream %d", f.kind, f.stream)
			}
			switch f.kind {
			case typeResponse, typeData:
				for i, b := range f.body {
					if b != byte(got[f.stream]+i) {
						t.Fatalf("stream %d: byte %d is %d", f.stream, got[f.stream]+i, b)
					}
				}
				got[f.stream] += len(f.body)
				got[0] += len(f.body)
				if got[f.stream] > allowed[f.stream] || got[0] > allowed[0] {
					t.Fatalf("stream %d: %d bytes of %d allowed, %d of %d together", f.stream, got[f.stream], allowed[f.stream], got[0], allowed[0])
				}
				if f.end && got[f.stream] != want[f.stream] {
					t.Fatalf("stream %d: %d of %d bytes", f.stream, got[f.stream], want[f.stream])
				}
				ended[f.stream] = f.end
				if !f.end {
					delete(ended, f.stream)
				}
			case typeCancel:
				if !cancelled[f.stream] {
					t.Fatalf("stream %d was given up with %d", f.stream, f.code)
				}
				ended[f.stream] = true
			case typeHello:
			default:
				t.Fatalf("a frame of type %d", f.kind)
			}
			p.data = p.data[taken:]
		}
		theirs.Close()
		<-c.written
		for s.Streams() > 0 {
			time.Sleep(100 * time.Microsecond)
		}
		s.dismiss()
	})
}

func TestAHandlerSeesWhatIsSaidBesideARememberedHead(t *testing.T) {
	seen := make(chan http.Header, 1)
	p := serve(t, func(w http.ResponseWriter, r *http.Request) { seen <- r.Header }).open(t, silent)
	head := appendRequestHead(nil, "GET", "/x", "Host", "a", "Accept", "*/*", "Baggage", "a=1")
	usual := appendField(nil, "X-Request-Id", "1")
	for i, c := range []struct{ extra, head []byte }{
		{usual, head},
		{appendField(appendField(usual, "Traceparent", "00-1-2-01"), "Baggage", "b=2"), nil},
		{usual, nil},
	} {
		stream := uint32(i + 1)
		p.send(appendRequest(nil, stream, 0, 0, 1, c.extra, c.head, nil, true))
		p.want(typeResponse, stream, 200, "")
		fields := <-seen
		trace, baggage := fields.Get("Traceparent"), strings.Join(fields.Values("Baggage"), ", ")
		if told := i == 1; fields.Get("Accept") != "*/*" || trace != "" != told || baggage != map[bool]string{false: "a=1", true: "a=1, b=2"}[told] {
			t.Errorf("request %d: %v", stream, fields)
		}
	}
}

// Package context panics, in a goroutine of its own, if a context that has ended does not say why.
func TestWhatIsDerivedFromAStreamsContextSeesWhyItEndedAlsoWhenTheStreamIsGone(t *testing.T) {
	for range 2000 {
		s := streams.Get().(*stream)
		derived, leave := context.WithCancel(&s.context)
		s.context.end(context.DeadlineExceeded)
		s.recycle()
		again := streams.Get().(*stream)
		select {
		case <-derived.Done():
		case <-time.After(10 * time.Second):
			t.Fatal("it has not ended")
		}
		if err := derived.Err(); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("it ended with %v", err)
		}
		if err := again.context.Err(); err != nil {
			t.Fatalf("the next stream's context begins with %v", err)
		}
		again.recycle()
		leave()
	}
}
