package link

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/panics"
)

// stormy answers as its path says, in one step or in two: after so many microseconds, or when the stream has ended, whichever is first.
// What it derives from the stream's context may outlive the stream, as that of a handler with a time limit does.
type stormy struct{}

func (stormy) wait(ctx context.Context, target string) {
	micros := 0
	_, _ = fmt.Sscan(path.Base(target), &micros)
	derived, leave := context.WithTimeout(ctx, time.Second)
	defer leave()
	select {
	case <-derived.Done():
	case <-time.After(time.Duration(micros) * time.Microsecond):
	}
}

func (s stormy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasPrefix(r.URL.Path, "/large"):
		_, _ = w.Write(make([]byte, 3*chunk))
	case strings.HasPrefix(r.URL.Path, "/body"):
		n, err := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprint(w, n, err)
	default:
		s.wait(r.Context(), r.URL.Path)
		_, _ = io.WriteString(w, r.URL.Path)
	}
}

type deaf struct{}

func (deaf) Over(error) {}

func (s stormy) Start(w http.ResponseWriter, r *http.Request, resume func(answer func()) (after func())) bool {
	if !strings.HasPrefix(r.URL.Path, "/later") {
		return false
	}
	ctx, target := r.Context().(batch.Context), r.URL.Path
	_ = ctx.Notify(deaf{})
	go func() {
		s.wait(ctx, target)
		_ = ctx.Notify(nil)
		call(resume(func() { _, _ = io.WriteString(w, target) }))
	}()
	return true
}

// gale is one link of a storm: what of its streams has ended, and what was wrong.
type gale struct {
	*peer
	random *rand.Rand
	ended  atomic.Int64
}

const inGale = 200 // streams under way at a time

// read reads frames until the link ends: each stream has one last word, and nothing behind it.
func (g *gale) read(done chan<- error) {
	last := map[uint32]bool{}
	for {
		f, err := g.try()
		switch {
		case err != nil:
			done <- err
			return
		case f.kind == typeError:
			done <- fmt.Errorf("ERROR %d %s", f.code, f.body)
			return
		case f.stream == 0:
			continue
		case last[f.stream]:
			done <- fmt.Errorf("a frame of type %d behind the last word on stream %d", f.kind, f.stream)
			return
		}
		if f.kind == typeCancel || f.end {
			last[f.stream] = true
			g.ended.Add(1)
		}
	}
}

// blow opens so many streams, gives up some of the last ones at random moments, and lets some be late. Then it waits for all, or cuts the link.
func (g *gale) blow(streams uint32) error {
	failed := make(chan error, 1)
	go g.read(failed)
	var unfinished []uint32
	for stream := uint32(1); stream <= streams; stream++ {
		var out []byte
		target := []string{"/soon", "/later", "/later", "/body", "/large"}[g.random.IntN(5)] + fmt.Sprintf("/%d", g.random.IntN(400))
		deadline := uint32(0)
		if g.random.IntN(3) == 0 {
			deadline = uint32(1 + g.random.IntN(30_000))
		}
		whole := g.random.IntN(4) > 0
		out = appendRequest(out, stream, deadline, uint16(g.random.IntN(2)), 0, nil, appendRequestHead(nil, "POST", target, "Host", "h"), []byte("some"), whole)
		if !whole {
			unfinished = append(unfinished, stream)
		}
		if n := len(unfinished); n > 0 && g.random.IntN(2) == 0 {
			at := g.random.IntN(n)
			out = appendData(out, unfinished[at], []byte("more"), true)
			unfinished[at] = unfinished[n-1]
			unfinished = unfinished[:n-1]
		}
		for range g.random.IntN(2) {
			out = appendCancel(out, stream-uint32(g.random.IntN(int(min(8, stream)))), cancelUnwanted)
		}
		if _, err := g.net.Write(appendWindow(out, 0, 3*chunk)); err != nil {
			return err
		}
		for end := time.Now().Add(10 * time.Second); int64(stream)-g.ended.Load() > inGale; time.Sleep(50 * time.Microsecond) {
			for _, each := range unfinished { // nothing else will end them
				_, _ = g.net.Write(appendData(nil, each, nil, true))
			}
			unfinished = unfinished[:0]
			select {
			case err := <-failed:
				return err
			default:
			}
			if time.Now().After(end) {
				return fmt.Errorf("%d of %d streams have ended", g.ended.Load(), stream)
			}
		}
	}
	if g.random.IntN(2) == 0 {
		_ = g.net.Close()
		<-failed
		return nil
	}
	for _, each := range unfinished {
		_, _ = g.net.Write(appendData(nil, each, nil, true))
	}
	for end := time.Now().Add(10 * time.Second); g.ended.Load() < int64(streams); time.Sleep(time.Millisecond) {
		select {
		case err := <-failed:
			return err
		default:
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d of %d streams have ended", g.ended.Load(), streams)
		}
	}
	_ = g.net.Close()
	return nil
}

// TestAStormLeavesNothing: many streams on several links, given up and late at random moments, links that are cut. LINK_STORM is how long
// it lasts, as a duration; a second if it is not set.
func TestAStormLeavesNothing(t *testing.T) {
	lasts := time.Second
	if text := os.Getenv("LINK_STORM"); text != "" {
		var err error
		if lasts, err = time.ParseDuration(text); err != nil || lasts > 10*time.Minute {
			t.Fatalf("LINK_STORM: %q is no duration of at most 10m", text)
		}
	}
	h, before := serve(t, stormy{}.ServeHTTP), panics.Count()
	h.Server.starter, h.Server.Log = stormy{}, slog.New(slog.DiscardHandler)
	seed, rounds := rand.Uint64(), uint64(0)
	for end := time.Now().Add(lasts); time.Now().Before(end) && !t.Failed(); rounds++ {
		var group sync.WaitGroup
		for number := range uint64(3) {
			g := &gale{peer: h.open(t, settings{maxFrame: minMaxFrame, streamWindow: 4 * chunk, connectionWindow: 1 << 24, maxHead: 1024}),
				random: rand.New(rand.NewPCG(seed, 3*rounds+number))}
			group.Go(func() {
				if err := g.blow(1000); err != nil {
					t.Errorf("seed %d, round %d, link %d: %v", seed, rounds, number, err)
				}
			})
		}
		group.Wait()
	}
	for end := time.Now().Add(10 * time.Second); h.Links() > 0 || h.Streams() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d links and %d streams are left", h.Links(), h.Streams())
		}
	}
	if panics.Count() != before {
		t.Errorf("%d panics", panics.Count()-before)
	}
	t.Logf("%d rounds of 3 links with 1000 streams each; %d cancelled", rounds, h.Cancelled())
}
