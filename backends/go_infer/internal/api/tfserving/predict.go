package tfserving

import (
	"context"
	"net/http"
	"sync"
	"time"

	"sluicegate/go_infer/internal/api"
	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/jsontensor"
	"sluicegate/go_infer/internal/metrics"
	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/repository"
)

// prediction is a :predict in work: the api.Steps of one that is answered later, and what predict does at once. It is pooled.
type prediction struct {
	h         *Handler
	x         *api.Exchange
	begun     time.Time
	lease     *repository.Lease // nil: there is no such model
	unknown   error             // why
	document  jsontensor.Document
	signature *model.Servable
	request   *model.Request
}

var predictions = sync.Pool{New: func() any { return &prediction{} }}

func (h *Handler) predict(x *api.Exchange, target target) (err error) {
	p := predictions.Get().(*prediction)
	p.h, p.x, p.begun = h, x, time.Now()
	defer func() { p.Free(err) }()
	p.lease, p.unknown = h.Repository.Acquire(x.Context, target.model, target.wanted)
	if err = p.Read(); err == nil {
		err = p.Run(x.Context)
	}
	if err == nil {
		err = p.Write()
	}
	return err
}

// Start begins to answer a prediction, and waits for nothing; see api.Exchange.Start. False: it is none, or one that may have to wait;
// nothing has happened, and Serve can do it.
func (h *Handler) Start(w http.ResponseWriter, r *http.Request, resume func(answer func() int) (after func())) bool {
	target, err := parse(r.Method, r.URL.Path)
	if err != nil || target.verb != "predict" {
		return false
	}
	h.settle(&target)
	lease := h.Repository.Held(target.model, target.wanted)
	if lease == nil {
		return false
	}
	x, err := api.Open(w, r, h.Limits, -1)
	if x == nil {
		lease.Release()
		return false
	}
	p := predictions.Get().(*prediction)
	p.h, p.x, p.begun, p.lease = h, x, time.Now(), lease
	x.Start(p, resume, err)
	return true
}

// Read reads the request's tensors, unless the model is overloaded: that is told at once, and not after reading all that cannot be served.
// That there is no such model is told if nothing else is wrong.
func (p *prediction) Read() (err error) {
	if p.unknown == nil {
		if err := p.lease.Model.Overloaded(p.x.Context, p.x.Class); err != nil {
			return err
		}
	}
	if p.document, err = jsontensor.Scan(p.x.Body); err != nil {
		return err
	}
	if p.unknown != nil {
		return p.unknown
	}
	name, err := p.document.SignatureName()
	if err != nil {
		return err
	}
	if p.signature, err = p.lease.Model.Signature(name); err != nil {
		return err
	}
	if err := p.signature.Overloaded(p.x.Context, p.x.Class); err != nil {
		return err // others of the model would not be
	}
	if p.request, err = p.document.Read(p.signature.Signature, p.lease.Model.Pool()); err == nil {
		p.request.Class = p.x.Class
	}
	return err
}

// Run waits until the request has been run.
func (p *prediction) Run(ctx context.Context) error { return p.signature.Run(ctx, p.request) }

// Start does not.
func (p *prediction) Start(ctx batch.Context, ended func(err error) (after func())) error {
	return p.signature.Start(ctx, p.request, ended)
}

// Quick says that the outputs take no more than so many bytes.
func (p *prediction) Quick(bytes int) bool { return p.signature.Small(p.request.Rows, bytes) }

// Write writes the answer.
func (p *prediction) Write() (err error) {
	x := p.x
	if p.document.Instances.Found() {
		x.Answer = append(x.Answer, `{"predictions":`...)
		x.Answer, err = jsontensor.AppendRows(x.Answer, p.signature.Signature, p.request)
	} else {
		x.Answer = append(x.Answer, `{"outputs":`...)
		x.Answer = jsontensor.AppendColumns(x.Answer, p.signature.Signature, p.request)
	}
	x.Answer = append(x.Answer, '}', '\n')
	return err
}

// Free counts the prediction and gives back what it holds.
func (p *prediction) Free(err error) {
	if p.request != nil {
		p.request.Release()
	}
	if p.lease != nil {
		p.h.answered(metrics.PredictAPI, p.lease.Model.Name, p.begun, err)
		p.lease.Release()
	}
	*p = prediction{}
	predictions.Put(p)
}
