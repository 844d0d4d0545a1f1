package image

import (
	"context"
	"sync"
	"sync/atomic"

	"sluicegate/go_infer/internal/panics"
	"sluicegate/go_infer/internal/status"
)

// Limits bound what pictures may cost.
type Limits struct {
	Workers  int // pictures in work at the same time: a decoded picture is far larger than its file
	Waiting  int // pictures that wait for a worker, of each request as many as there are workers; beyond, they are refused at once
	Pixels   int // of one picture
	Pictures int // of one request
	Tensor   int // bytes of the tensor of one request
}

// Stage is the feature step: pictures in, rows of a tensor out, by a bounded number of workers, so that pictures leave the cores to Runs
// and to those who send none. Requests take turns picture by picture: one with many does not hold up one with a single one.
type Stage struct {
	Limits  Limits
	slots   chan struct{}
	waiting atomic.Int64
}

// NewStage makes a stage.
func NewStage(limits Limits) *Stage {
	return &Stage{Limits: limits, slots: make(chan struct{}, limits.Workers)}
}

// Waiting is the number of pictures that wait for a worker.
func (s *Stage) Waiting() int { return int(s.waiting.Load()) }

// Working is the number of pictures in work.
func (s *Stage) Working() int { return len(s.slots) }

// Admit refuses a request for more pictures, or a larger tensor, than the limits allow.
func (s *Stage) Admit(pictures int, how *Preprocess) error {
	if pictures > s.Limits.Pictures {
		return status.Errorf(status.InvalidArgument, "the request has %d pictures; at most %d are accepted (--max_images)", pictures, s.Limits.Pictures)
	}
	if size := pictures * how.Size(); size > s.Limits.Tensor {
		return status.Errorf(status.InvalidArgument, "%d pictures make a tensor of %d bytes; at most %d are accepted (--max_image_tensor)",
			pictures, size, s.Limits.Tensor)
	}
	return nil
}

// Fill makes row i of the tensor in into of picture i. It returns when nobody touches into any more; the first error ends the rest.
func (s *Stage) Fill(ctx context.Context, pictures [][]byte, how *Preprocess, into []byte) error {
	if len(pictures) == 1 {
		return s.one(ctx, pictures[0], how, into)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var work sync.WaitGroup
	var failed sync.Once
	var failure error
	size := how.Size()
	for range min(s.Limits.Workers, len(pictures)) {
		work.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(pictures) {
					return
				}
				err := panics.Guard(nil, "a picture", func() error { return s.one(ctx, pictures[i], how, into[i*size:(i+1)*size]) })
				if err != nil {
					failed.Do(func() {
						known := *status.From(err)
						known.Message = status.Errorf(0, "picture %d of %d: %s", i+1, len(pictures), known.Message).Message
						failure = &known
					})
					cancel(failure)
					return
				}
			}
		})
	}
	work.Wait()
	return failure
}

func (s *Stage) one(ctx context.Context, content []byte, how *Preprocess, into []byte) error {
	if err := s.take(ctx); err != nil {
		return err
	}
	defer func() { <-s.slots }()
	picture, err := Decode(ctx, content, s.Limits.Pixels)
	if err != nil {
		return err
	}
	picture.Write(how, into)
	return nil
}

// take waits for a worker, in the order of arrival.
func (s *Stage) take(ctx context.Context) error {
	select {
	case s.slots <- struct{}{}:
		return nil
	default:
	}
	if waiting := s.waiting.Add(1); waiting > int64(s.Limits.Waiting) {
		s.waiting.Add(-1)
		return status.Errorf(status.Unavailable, "%d pictures are waiting already (--max_image_queue); retry later", waiting-1)
	}
	defer s.waiting.Add(-1)
	select {
	case s.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return abandoned(ctx)
	}
}
