package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"sluicegate/go_infer/internal/api"
	"sluicegate/go_infer/internal/batch"
)

// twoSteps is a handler that answers below /later when it is told to, from a goroutine that must not wait.
type twoSteps struct {
	http.HandlerFunc
	asked chan step
}

type step struct {
	w      http.ResponseWriter
	r      *http.Request
	resume func(answer func()) (after func())
}

func (h *twoSteps) Start(w http.ResponseWriter, r *http.Request, resume func(answer func()) (after func())) bool {
	switch {
	case r.URL.Path == "/panic":
		panic("on purpose")
	case !strings.HasPrefix(r.URL.Path, "/later"):
		return false
	}
	h.asked <- step{w, r, resume}
	return true
}

// end answers as the body says, and sees to what is to be done after that.
func (s step) end(body string) {
	if after := s.resume(func() { _, _ = io.WriteString(s.w, body) }); after != nil {
		after()
	}
}

// listener passes on what a context says.
type listener chan error

func (l listener) Over(reason error) { l <- reason }

func serveLater(t *testing.T) (*host, *twoSteps) {
	t.Helper()
	h := serve(t, echo)
	steps := &twoSteps{echo, make(chan step, 1000)}
	h.Server.starter, h.Server.Log = steps, slog.New(slog.DiscardHandler)
	return h, steps
}

func TestAnswersComeLaterAndInAnyOrder(t *testing.T) {
	h, steps := serveLater(t)
	p := h.open(t, silent)
	for stream := uint32(1); stream <= 3; stream++ {
		p.send(post(stream, "/later", "body", true))
	}
	p.send(post(4, "/now", "body", true))
	p.want(typeResponse, 4, 200, "POST /now h  4 body")
	first, second, third := <-steps.asked, <-steps.asked, <-steps.asked
	for _, each := range []struct {
		step
		stream uint32
	}{{third, 3}, {first, 1}, {second, 2}} {
		each.end(fmt.Sprint("answer ", each.stream))
		if f := p.want(typeResponse, each.stream, 200, fmt.Sprint("answer ", each.stream)); !f.end {
			t.Error("it has not ended")
		}
	}
}

func TestABodyThatIsNotAllThereIsNotAnsweredLater(t *testing.T) {
	h, steps := serveLater(t)
	p := h.open(t, silent)
	p.send(append(post(1, "/later", "some", false), appendData(nil, 1, []byte(" more"), true)...))
	p.want(typeResponse, 1, 200, "POST /later h  -1 some more")
	if len(steps.asked) > 0 {
		t.Error("it was begun")
	}
}

// Whoever answers many must wait for no peer: what cannot leave yet waits elsewhere.
func TestAnAnswerThatCannotLeaveYetHoldsUpNobody(t *testing.T) {
	for _, size := range []int{chunk - 1, 5 * chunk} {
		h, steps := serveLater(t)
		p := h.open(t, settings{maxFrame: minMaxFrame, streamWindow: chunk, connectionWindow: chunk, maxHead: 1024})
		p.send(append(post(1, "/later", "", true), post(2, "/later", "", true)...))
		first, second := <-steps.asked, <-steps.asked
		both := make(chan struct{})
		go func() {
			first.end(strings.Repeat("a", size))
			second.end(strings.Repeat("b", size))
			close(both)
		}()
		select {
		case <-both:
		case <-time.After(10 * time.Second):
			t.Fatal("the second waits for a peer that gives no credit to the first")
		}
		got := map[uint32]int{}
		for got[1] < size || got[2] < size {
			f := p.next()
			if n := len(f.body); n > 0 {
				got[f.stream] += n
				p.send(appendWindow(appendWindow(nil, f.stream, uint32(n)), 0, uint32(n)))
			}
		}
	}
}

// TestALargeAnswerThatWaitsForCreditIsHeldOnce: by the stream, in the buffer that it was made in.
func TestALargeAnswerThatWaitsForCreditIsHeldOnce(t *testing.T) {
	h, steps := serveLater(t)
	p := h.open(t, settings{maxFrame: minMaxFrame, streamWindow: chunk, connectionWindow: chunk, maxHead: 1024})
	p.send(post(1, "/later", "", true))
	s := <-steps.asked
	answer := bytes.Repeat([]byte("0123456789abcdef"), 1<<19) // 8 MiB
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if done := s.resume(func() {
		if keeper, is := s.w.(api.Keeper); is {
			if instead := keeper.Take(answer); len(instead) > 0 {
				t.Error("the buffer was not kept")
			}
			return
		}
		_, _ = s.w.Write(answer)
	}); done != nil {
		done()
	}
	got := p.next().body // RESPONSE, as far as there is credit
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > uint64(len(answer)/4) {
		t.Errorf("%d bytes were taken to hold an answer of %d that is there", took, len(answer))
	}
	for len(got) < len(answer) {
		p.send(appendWindow(appendWindow(nil, 1, chunk), 0, chunk))
		for n := 0; n < chunk && len(got) < len(answer); {
			body := p.next().body
			got, n = append(got, body...), n+len(body)
		}
	}
	if !bytes.Equal(got, answer) {
		t.Error("the answer that came is another")
	}
}

func TestWhoWaitsForALaterAnswerCanLeaveOrBeLate(t *testing.T) {
	for _, c := range []struct {
		name     string
		deadline uint32 // microseconds
		leave    bool
		code     uint16
		err      error
	}{
		{"the peer cancels", 0, true, cancelUnwanted, context.Canceled},
		{"it is late", 20_000, false, 0, context.DeadlineExceeded},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, steps := serveLater(t)
			p := h.open(t, silent)
			p.send(appendRequest(nil, 1, c.deadline, 0, 0, nil, appendRequestHead(nil, "POST", "/later"), nil, true))
			s := <-steps.asked
			ended := make(listener, 1)
			if err := s.r.Context().(batch.Context).Notify(ended); err != nil {
				ended <- err
			}
			if c.leave {
				p.send(appendCancel(nil, 1, cancelUnwanted))
			}
			if err := <-ended; !errors.Is(err, c.err) {
				t.Errorf("notified of %v, want %v", err, c.err)
			}
			s.end("too late")
			if c.leave {
				p.want(typeCancel, 1, c.code, "")
			} else {
				p.want(typeResponse, 1, 200, "too late")
			}
		})
	}
}

func TestAPanicInEitherStepEndsItsStreamAlone(t *testing.T) {
	h, steps := serveLater(t)
	p := h.open(t, silent)
	p.send(post(1, "/panic", "", true))
	p.want(typeCancel, 1, cancelFailed, "")
	p.send(post(2, "/later", "", true))
	s := <-steps.asked
	if after := s.resume(func() { panic("on purpose") }); after != nil {
		after()
	}
	p.want(typeCancel, 2, cancelFailed, "")
	p.send(post(3, "/fine", "", true))
	p.want(typeResponse, 3, 200, "POST /fine h  0 ")
}

func TestALinkThatEndsEndsWhatIsAnsweredLater(t *testing.T) {
	h, steps := serveLater(t)
	p := h.open(t, silent)
	p.send(post(1, "/later", "", true))
	s := <-steps.asked
	_ = p.net.Close()
	<-s.r.Context().Done()
	s.end("for nobody")
}
