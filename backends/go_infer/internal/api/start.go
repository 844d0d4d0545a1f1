package api

import (
	"context"
	"net/http"

	"sluicegate/go_infer/internal/batch"
)

const (
	startBody   = 16 << 10 // the largest body that is read where it comes, ahead of what came behind it
	startAnswer = 16 << 10 // the most bytes of outputs that are made an answer of where they come, ahead of others'
)

// Steps are an Operation in steps, none of which waits but Run.
type Steps interface {
	Read() error          // reads the body of the exchange
	Quick(bytes int) bool // whether the outputs will be no more than that

	// As those of model.Servable; one of the two follows.
	Run(ctx context.Context) error
	Start(ctx batch.Context, ended func(err error) (after func())) error

	Write() error   // appends to the answer of the exchange
	Free(err error) // gives back what the operation holds: the last step, whatever became of the others, which it is told
}

// later is what an exchange that is answered later remembers.
type later struct {
	w      http.ResponseWriter
	limits Limits
	steps  Steps
	err    error
	resume func(answer func() int) (after func())

	ended  func(err error) (after func()) // methods of the exchange, bound once
	answer func() int
}

// Open is how an exchange begins that is answered later, of a request whose body is all there; head as in ServeParts. nil if the request
// wants something that may wait: Serve can do it, and nothing has happened. Else Start must follow, and is given the error.
func Open(w http.ResponseWriter, r *http.Request, limits Limits, head int) (x *Exchange, err error) {
	_, tells := r.Context().(batch.Context)
	if !tells || r.ContentLength < 0 || r.ContentLength > min(startBody, int64(limits.MaxBody)) || encoded(r) != "" ||
		len(r.Header[TimeoutHeader]) > 0 {
		return nil, nil
	}
	x = exchanges.Get().(*Exchange)
	x.Request, x.Context, x.Header, x.budget = r, r.Context(), w.Header(), limits.Bodies
	x.TrustPriority = limits.TrustPriority
	x.later.w, x.later.limits = w, limits
	if x.later.ended == nil {
		x.later.ended, x.later.answer = x.end, x.last
	}
	if x.Class, err = Class(r, limits); err == nil {
		err = x.readAnnounced(int(r.ContentLength))
	}
	x.split(head)
	return x, err
}

// Start takes the steps, and waits for none. resume is called once, by whoever has the answer: it is to call answer, which writes it
// and returns the HTTP code. What it returns is called when all who are answered together have been. Nothing of the exchange may be
// touched any more.
func (x *Exchange) Start(steps Steps, resume func(answer func() int) (after func()), err error) {
	x.later.steps, x.later.resume = steps, resume
	reading := true
	defer func() {
		if reading { // it panicked
			x.free()
		}
	}()
	if err == nil {
		err = steps.Read()
	}
	reading = false
	if err == nil && !steps.Quick(startAnswer) {
		go x.wait()
		return
	}
	if err == nil {
		err = steps.Start(x.Context.(batch.Context), x.later.ended)
	}
	if err != nil {
		call(x.end(err))
	}
}

func call(f func()) {
	if f != nil {
		f()
	}
}

// wait is for an answer that others should not wait for.
func (x *Exchange) wait() {
	call(x.later.resume(func() int {
		running := true
		defer func() {
			if running { // it panicked
				x.free()
			}
		}()
		x.later.err = x.later.steps.Run(x.Context)
		running = false
		return x.last()
	}))
}

func (x *Exchange) end(err error) (after func()) {
	x.later.err = err
	return x.later.resume(x.later.answer)
}

// last answers.
func (x *Exchange) last() int {
	defer x.free()
	l := &x.later
	if l.err == nil {
		l.err = l.steps.Write()
	}
	return x.answer(l.w, l.limits, l.err)
}

func (x *Exchange) free() {
	l := &x.later
	l.steps.Free(l.err)
	*l = later{ended: l.ended, answer: l.answer}
	x.recycle()
}
