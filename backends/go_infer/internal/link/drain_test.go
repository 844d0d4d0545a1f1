package link

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// TestTheEndOfALargeAnswerArrivesThoughThePeerGoesOnSayingThings: a connection that is closed while something comes on it is reset by the
// kernel, and what it had not delivered is lost.
func TestTheEndOfALargeAnswerArrivesThoughThePeerGoesOnSayingThings(t *testing.T) {
	const size = 8 << 20
	h := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, size)) })
	p := h.open(t, settings{maxFrame: minMaxFrame, streamWindow: 2 * size, connectionWindow: 2 * size, maxHead: 1024})
	p.send(get(1, "/"))
	got := len(p.want(typeResponse, 1, 200, string(make([]byte, chunk))).body)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- h.Stop(ctx) }()
	for f := (&frame{}); !f.end; {
		var err error
		if f, err = p.try(); err != nil {
			t.Fatalf("after %d of %d bytes: %v", got, size, err)
		}
		if f.kind == typeData {
			got += len(f.body)
		}
		_, _ = p.net.Write(appendPing(nil, typePing, []byte("are you?")))
		if got > size/2 {
			time.Sleep(time.Millisecond) // what is left is in the kernel by now, or will be
		}
	}
	if got != size {
		t.Errorf("%d of %d bytes came", got, size)
	}
	p.gone(0)
	p.net.Close()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestAPeerThatDoesNotCloseHoldsUpNoStop(t *testing.T) {
	h := serve(t, echo)
	p := h.open(t, silent)
	p.send(get(1, "/"))
	p.want(typeResponse, 1, 200, "GET / h  0 ")
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	pings := make(chan struct{})
	go func() {
		defer close(pings)
		for err := error(nil); err == nil; time.Sleep(time.Millisecond) {
			_, err = p.net.Write(appendPing(nil, typePing, []byte("are you?")))
		}
	}()
	if err := h.Stop(ctx); err != nil {
		t.Error(err)
	}
	<-pings
}

// TestALinkThatIsOpenedWhileTheServerStopsEndsAtOnce: its Upgrade was accepted before.
func TestALinkThatIsOpenedWhileTheServerStopsEndsAtOnce(t *testing.T) {
	s := quiet(idle)
	if err := s.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	ours, theirs := net.Pipe()
	defer theirs.Close()
	go func() { _, _ = io.Copy(io.Discard, theirs) }()
	run := linked(s, ours)
	ended(t, s, run)
}

// patient is a connection that notes until when it waits for the peer.
type patient struct {
	net.Conn
	until atomic.Int64
}

func (p *patient) SetReadDeadline(until time.Time) error {
	p.until.Store(until.UnixNano())
	return p.Conn.SetReadDeadline(until)
}

func TestAPeerThatHasGreetedMayBeSilentForLonger(t *testing.T) {
	ours, theirs := net.Pipe()
	network := &patient{Conn: ours}
	s := quiet(idle)
	run := linked(s, network)
	p := &peer{T: t, net: theirs}
	p.send(appendHello(nil, silent))
	wanted := time.Now().Add(idleTimeout - time.Second).UnixNano()
	for end := time.Now().Add(5 * time.Second); network.until.Load() < wanted; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a peer that greets and then says nothing is given up before its time")
		}
	}
	theirs.Close()
	ended(t, s, run)
}

// TestABodyThatIsReadALittleLaterThanItComesIsNotHeldWhole: what was read is given back though there is always something left.
func TestABodyThatIsReadALittleLaterThanItComesIsNotHeldWhole(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	c := newConn(quiet(idle), ours)
	head, err := readHead(appendRequestHead(nil, "POST", "/"), true)
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.admit(&frame{kind: typeRequest, stream: 1, head: head, body: []byte("behind")}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	piece := make([]byte, chunk)
	for range 500 {
		if err := c.data(&frame{kind: typeData, stream: 1, body: piece}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(s.request.Body, piece); err != nil {
			t.Fatal(err)
		}
	}
	if held := cap(s.body); held > int(silent.streamWindow) {
		t.Errorf("%d bytes are held for %d that are to be read", held, len(s.body)-s.read)
	}
}
