package api

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"sluicegate/go_infer/internal/batch"
)

// tells is a context that a link could have given.
type tells struct{ context.Context }

func (tells) Notify(batch.Listener) error { return nil }

// panics are steps of which one panics.
type panics struct {
	in    string
	quick bool
	freed int
}

func (p *panics) at(step string) {
	if p.in == step {
		panic("on purpose")
	}
}

func (p *panics) Read() error                                           { p.at("read"); return nil }
func (p *panics) Quick(int) bool                                        { return p.quick }
func (p *panics) Run(context.Context) error                             { p.at("run"); return nil }
func (p *panics) Start(_ batch.Context, ended func(error) func()) error { call(ended(nil)); return nil }
func (p *panics) Write() error                                          { p.at("write"); return nil }
func (p *panics) Free(error)                                            { p.freed++ }

// A lease that a panic keeps would keep its model in memory, and the process from ending, for ever.
func TestWhatIsAnsweredLaterIsFreedOnceWhicheverStepPanics(t *testing.T) {
	for _, c := range []panics{
		{in: "none", quick: true}, {in: "none"},
		{in: "read", quick: true}, {in: "write", quick: true},
		{in: "run"}, {in: "write"},
	} {
		bodies := NewBudget(1 << 20)
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("body")).WithContext(tells{context.Background()})
		x, err := Open(httptest.NewRecorder(), r, Limits{MaxBody: 100, Bodies: bodies}, -1)
		if x == nil || err != nil {
			t.Fatal(x, err)
		}
		panicked := make(chan bool, 1)
		guarded := func(part func()) {
			defer func() { panicked <- recover() != nil }()
			part()
		}
		resume := func(answer func() int) func() {
			guarded(func() { answer() })
			return nil
		}
		if c.in == "read" {
			guarded(func() { x.Start(&c, resume, nil) })
		} else {
			x.Start(&c, resume, nil)
		}
		if did := <-panicked; did != (c.in != "none") || c.freed != 1 || bodies.Held() != 0 {
			t.Errorf("%+v: panicked %v, freed %d times, %d bytes of bodies are held", c, did, c.freed, bodies.Held())
		}
	}
}
