package model

import (
	"context"
	"errors"
	"time"
	"unsafe"

	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/panics"
	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/tensor"
)

// start makes the signature's queue, which knows from warming how long Runs take.
func (s *Servable) start(limits batch.Limits, options Options) {
	s.batcher = batch.NewShared(s.Model.Name, options.Weight, limits, s.runner.run, options.Events, time.Now)
	for rows, took := range s.runner.warmed {
		s.batcher.Learn(rows, took)
	}
}

// Waiting is the number of rows in the queue.
func (s *Servable) Waiting() int {
	if s.batcher == nil {
		return 0
	}
	return s.batcher.Waiting()
}

// Tally is what became of the requests.
func (s *Servable) Tally() batch.Tally {
	if s.batcher == nil {
		return batch.Tally{}
	}
	return s.batcher.Tally()
}

// Run runs the request, alone or with others. On nil its outputs are there until the caller releases it.
func (s *Servable) Run(ctx context.Context, request *Request) error {
	options, err := s.begin(request)
	if err != nil {
		return err
	}
	return s.ended(request, s.batcher.Do(ctx, request, request.Rows, options))
}

// Start is Run for who does not wait: with nil, ended is called with what Run would have returned, in a goroutine that it must not hold
// up. What it returns is called when all that ended with this request have been told; it may be nil.
func (s *Servable) Start(ctx batch.Context, request *Request, ended func(err error) (after func())) error {
	options, err := s.begin(request)
	if err != nil {
		return err
	}
	request.servable, request.tell = s, ended
	if err := s.batcher.Start(ctx, request, request.Rows, options, (*started)(request)); err != nil {
		request.servable, request.tell = nil, nil
		return s.ended(request, err)
	}
	return nil
}

// started is a request whose end is told.
type started Request

// Ended is for the batcher.
func (s *started) Ended(err error) (after func()) {
	r := (*Request)(s)
	servable, tell := r.servable, r.tell
	r.servable, r.tell = nil, nil
	return tell(servable.ended(r, err))
}

// begin makes ready to give a request to the batcher.
func (s *Servable) begin(request *Request) (batch.Options, error) {
	options := batch.Options{Class: request.Class}
	for i := range request.In {
		options.Bytes += held(&request.In[i])
	}
	request.Begun = time.Now()
	return options, s.CheckRows(int64(request.Rows))
}

// ended counts a request that the batcher is done with, and words what it says. Whoever waits for that is told in any case.
func (s *Servable) ended(request *Request, err error) (told error) {
	defer func() {
		if reason := recover(); reason != nil {
			told = panics.Stopped(nil, "the end of a request", reason, "model", s.Model.Name)
		}
	}()
	if s.runner.statistics != nil {
		s.runner.statistics.Answered(request.Begun, request.Rows, err != nil)
	}
	if err != nil {
		return s.explain(err)
	}
	answer := 0
	for i := range request.Out {
		answer += held(&request.Out[i])
	}
	if err := s.CheckAnswer(answer); err != nil {
		return err
	}
	if shadow := s.Model.shadow.Load(); shadow != nil {
		shadow.copy(s, request)
	}
	return nil
}

// stringHeader is what a string takes beside its bytes.
const stringHeader = int(unsafe.Sizeof([]byte(nil)))

// held is the memory that a tensor keeps.
func held(value *tensor.Value) int {
	if value.Strings == nil {
		return value.Size()
	}
	size := len(value.Strings) * stringHeader
	for _, each := range value.Strings {
		size += len(each)
	}
	return size
}

// explain words what the batcher says for clients. TF-Serving's words come first, where it has any.
func (s *Servable) explain(err error) error {
	var refusal *batch.Refusal
	if errors.As(err, &refusal) {
		return s.refuse(refusal)
	}
	switch {
	case errors.Is(err, batch.ErrNoRows):
		return status.Errorf(status.InvalidArgument, "the request has no rows: every input's first dimension must be at least 1")
	case errors.Is(err, batch.ErrExpired), errors.Is(err, context.DeadlineExceeded):
		return status.Errorf(status.DeadlineExceeded, "the request's deadline passed before model %s answered", s.Model.Name)
	case errors.Is(err, context.Canceled):
		return status.Errorf(status.Cancelled, "the client went away")
	}
	return err
}

// refusals are the texts of overload; %[1]s is the model, %[2]d the rows that wait.
var refusals = map[batch.Reason]string{
	batch.Rows:      "The batch scheduling queue to which this task was submitted is full: %[2]d rows wait for model %[1]s; retry later",
	batch.Bytes:     "The batch scheduling queue to which this task was submitted is full: %[2]d rows wait for model %[1]s, as large as --max_queue_bytes allows; retry later",
	batch.Late:      "model %[1]s cannot answer before the request's deadline: %[2]d rows wait; retry later, or allow more time",
	batch.Displaced: "model %[1]s is overloaded, and the request made room for one of a higher priority: %[2]d rows wait; retry later",
}

func (s *Servable) refuse(refusal *batch.Refusal) error {
	text, overload := refusals[refusal.Reason]
	if !overload {
		return status.Errorf(status.Unavailable, "model %s version %d is being unloaded", s.Model.Name, s.Model.Version)
	}
	worded := status.Errorf(status.Unavailable, text, s.Model.Name, refusal.Waiting)
	worded.RetryAfter = refusal.After
	return worded
}
