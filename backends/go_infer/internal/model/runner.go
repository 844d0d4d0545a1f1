package model

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/session"
	"sluicegate/go_infer/internal/statistics"
	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/tensor"
)

// runner turns parts of requests into one Run and its outputs back into theirs.
//
// Why rows are copied into the batch (a few ns for 256 bytes) instead of being parsed into a forming one: a request keeps its own
// memory until a slot takes it, so it can expire, leave, be split or be overtaken without a hole in somebody's batch.
// A part that alone fills its bucket is fed to TensorFlow where it lies.
// Outputs land in slabs whose size the signature tells, so a Run is one C call. A part that is a whole request and alone in its Run
// keeps them; else rows are copied. An output whose size the signature leaves open is copied out of TensorFlow's memory, which then
// takes a second C call to free.
//
// Invariant: slot n's call, batch memory and landing slabs are touched by slot n's goroutine only, and none is held between Runs.
type runner struct {
	signature *Signature
	pool      *tensor.Pool
	limits    batch.Limits // its Coalesce says whether there are batches
	slots     []slot
	warmed    map[int]time.Duration // how long a Run of so many rows takes
	recorded  *recorded             // rows that the version brings along; nil: none
	content   rows                  // of what warms it; nil: not chosen yet
	apart     atomic.Bool           // requests run one by one, as they are: see Signature.Apart, which says why
	tell      func(text string)     // what an operator should know
	until     time.Time             // when trying and warming end; zero: when they are done

	statistics *statistics.Recorder // nil: not counted
	aside      func() int           // while it is warmed: by how much Runs give way to serving; nil: they serve
}

type slot struct {
	call   *session.Call
	rows   bool // in this Run the first dimension is rows, of any requests
	dims   []int64
	gather []*tensor.Slab // batch memory of each input while a Run lasts
	landed []*tensor.Slab // where each output lands, until it is scattered or handed over
}

func newRunner(s *session.Session, signature *Signature, pool *tensor.Pool, limits batch.Limits) (*runner, error) {
	r := &runner{
		signature: signature,
		pool:      pool,
		limits:    limits,
		slots:     make([]slot, limits.Slots),
		tell:      func(string) {},
	}
	r.apart.Store(!signature.Rowwise())
	for i := range r.slots {
		call, err := s.NewCall(names(signature.Inputs), names(signature.Outputs))
		if err != nil {
			r.close()
			return nil, err
		}
		r.slots[i] = slot{
			call:   call,
			gather: make([]*tensor.Slab, len(signature.Inputs)),
			landed: make([]*tensor.Slab, len(signature.Outputs)),
		}
	}
	for i := range signature.Inputs {
		if got := r.slots[0].call.FeedType(i); got != signature.Inputs[i].Type {
			r.close()
			return nil, fmt.Errorf("input %q is %v in the graph; the signature says %v", signature.Inputs[i].Alias, got, signature.Inputs[i].Type)
		}
	}
	for i := range signature.Outputs {
		if got := r.slots[0].call.FetchType(i); got != signature.Outputs[i].Type {
			r.close()
			return nil, fmt.Errorf("output %q is %v in the graph; the signature says %v", signature.Outputs[i].Alias, got, signature.Outputs[i].Type)
		}
	}
	return r, nil
}

func (r *runner) close() {
	for i := range r.slots {
		if r.slots[i].call != nil {
			r.slots[i].call.Close()
		}
	}
}

// run is the batcher's runner. What TensorFlow refuses because of a row's content must not cost its neighbours their answers: then
// every part runs alone, and only those that are refused again fail.
// What does not answer row by row, though its shapes and the trial (see trial) said so, runs apart from then on.
func (r *runner) run(number int, parts []batch.Part[*Request]) error {
	if r.apart.Load() {
		return r.each(number, parts)
	}
	err := r.once(number, parts, true)
	if errors.Is(err, errRows) {
		if !r.apart.Swap(true) {
			r.tell(fmt.Sprintf("signature %q: %v; from now on its requests are run one by one", r.signature.Name, err))
		}
		return r.each(number, parts)
	}
	if err == nil || len(parts) == 1 || !ofContent[status.From(err).Code] {
		return err
	}
	for i := range parts {
		if err := r.once(number, parts[i:i+1], true); err != nil {
			parts[i].Fail(err)
		}
	}
	return nil
}

// each runs requests one by one and as they are. Of one that was divided already no part can be answered.
func (r *runner) each(number int, parts []batch.Part[*Request]) error {
	for i := range parts {
		part := &parts[i]
		var err error = status.Errorf(status.Internal, "signature %q does not answer row by row, and the request of %d rows was divided; "+
			`declare "batching": false in %s, or send fewer rows`, r.signature.Name, part.Payload.Rows, DeclarationFile)
		if part.Start == 0 && part.Rows == part.Payload.Rows {
			err = r.once(number, parts[i:i+1], false)
		}
		if len(parts) == 1 {
			return err
		}
		if err != nil {
			part.Fail(err)
		}
	}
	return nil
}

// errRows says that outputs have not the rows that inputs had.
var errRows = errors.New("not one row per input row")

// ofContent are the codes with which operations refuse what they are fed.
var ofContent = map[status.Code]bool{
	status.InvalidArgument: true, status.OutOfRange: true, status.NotFound: true, status.FailedPrecondition: true, status.Unimplemented: true,
}

// once runs parts as one Run. With together they are rows of a batch; without, there is one part, the tensors of one request as they are.
func (r *runner) once(number int, parts []batch.Part[*Request], together bool) error {
	slot := &r.slots[number]
	slot.rows = together
	defer slot.free()
	run := statistics.Run{Begun: time.Now()}
	rows := 0
	for i := range parts {
		rows += parts[i].Rows
		if parts[i].Start == 0 {
			run.Requests++
			run.Queued += run.Begun.Sub(parts[i].Payload.Begun)
		}
	}
	bucket := rows
	if together {
		bucket = r.limits.Bucket(rows)
	}
	for input := range r.signature.Inputs {
		if err := r.feed(slot, input, parts, rows, bucket); err != nil {
			return err
		}
	}
	for output := range r.signature.Outputs {
		if err := r.place(slot, output, bucket); err != nil {
			return err
		}
	}
	run.Fed = time.Now()
	if err := r.call(slot); err != nil {
		return err
	}
	run.Ran = time.Now()
	defer slot.call.Release()
	if err := r.aligned(slot, bucket); err != nil {
		return err
	}
	start := 0
	for i := range parts {
		if err := r.scatter(slot, &parts[i], start, rows, bucket); err != nil {
			return err
		}
		start += parts[i].Rows
	}
	if r.statistics != nil {
		run.Done, run.Rows = time.Now(), rows
		r.statistics.Executed(&run)
	}
	return nil
}

func (r *runner) call(slot *slot) error {
	if r.aside != nil {
		return slot.call.RunAside(r.aside())
	}
	return slot.call.Run()
}

func (s *slot) free() {
	for _, side := range [][]*tensor.Slab{s.gather, s.landed} {
		for i, slab := range side {
			if slab != nil {
				slab.Free()
				side[i] = nil
			}
		}
	}
}

// place gives one output memory to land in, if the signature tells how much.
func (r *runner) place(slot *slot, output, bucket int) error {
	size, known := r.signature.Outputs[output].Room(bucket)
	if !known {
		slot.call.SetOutput(output, nil, 0)
		return nil
	}
	slab, err := r.pool.Get(size)
	if err != nil {
		return status.Errorf(status.ResourceExhausted, "%v", err)
	}
	slot.landed[output] = slab
	slot.call.SetOutput(output, slab.Pointer(), size)
	return nil
}

// feed gives the call one input: in place if a single part fills the bucket, else gathered. What a batch lacks to its bucket is filled
// with its last row: that is a row the model can take, which zeros and empty strings need not be.
func (r *runner) feed(slot *slot, input int, parts []batch.Part[*Request], rows, bucket int) error {
	first := &parts[0].Payload.In[input]
	slot.dims = append(slot.dims[:0], first.Dims...)
	if slot.rows {
		slot.dims[0] = int64(bucket)
	}
	if first.Type == tensor.String {
		return r.feedStrings(slot, input, parts, bucket-rows)
	}
	size := first.Size()
	if !slot.rows {
		return slot.call.SetInput(input, first.Type, slot.dims, first.Slab.Pointer(), size)
	}
	rowBytes := size / int(first.Dims[0])
	if offset := parts[0].Start * rowBytes; len(parts) == 1 && rows == bucket && offset%tensor.Alignment == 0 {
		data := unsafe.Add(first.Slab.Pointer(), offset)
		return slot.call.SetInput(input, first.Type, slot.dims, data, bucket*rowBytes)
	}
	batched, err := r.gather(slot, input, bucket*rowBytes)
	if err != nil {
		return err
	}
	at := 0
	for i := range parts {
		part := &parts[i]
		whole := part.Payload.In[input].Bytes()
		at += copy(batched[at:], whole[part.Start*rowBytes:(part.Start+part.Rows)*rowBytes])
	}
	last := batched[at-rowBytes : at]
	for at < len(batched) {
		at += copy(batched[at:], last)
	}
	return slot.call.SetInput(input, first.Type, slot.dims, slot.gather[input].Pointer(), len(batched))
}

// gather takes memory for one input of a batch, which the slot frees after the Run.
func (r *runner) gather(slot *slot, input, size int) ([]byte, error) {
	slab, err := r.pool.Get(size)
	if err != nil {
		return nil, status.Errorf(status.ResourceExhausted, "%v", err)
	}
	slot.gather[input] = slab
	return slab.Bytes(size), nil
}

// aligned checks that every output of a batch has its rows.
func (r *runner) aligned(slot *slot, bucket int) error {
	for i := range r.signature.Outputs {
		_, rank, _ := slot.call.Output(i)
		if slot.rows && (rank == 0 || slot.call.Dim(i, 0) != int64(bucket)) {
			return fmt.Errorf("output %q has %w (%d)", r.signature.Outputs[i].Alias, errRows, bucket)
		}
	}
	return nil
}

// scatter gives a request its rows of every output: the slab itself where it is all of the request's own, else a copy.
func (r *runner) scatter(slot *slot, part *batch.Part[*Request], start, rows, bucket int) error {
	request := part.Payload
	request.mu.Lock()
	defer request.mu.Unlock()
	if len(request.Out) == 0 {
		request.outputs(len(r.signature.Outputs))
	}
	alone := part.Rows == rows && part.Rows == request.Rows
	for i := range r.signature.Outputs {
		dtype, rank, data := slot.call.Output(i)
		info := &r.signature.Outputs[i]
		if rank > session.MaxRank {
			return status.Errorf(status.Unimplemented, "%s", tooManyDimensions(info, rank))
		}
		if dtype != info.Type {
			return status.Errorf(status.Internal, "output %q is %v; the signature says %v", info.Alias, dtype, info.Type)
		}
		value := &request.Out[i]
		fresh := value.Slab == nil && value.Strings == nil
		if fresh {
			r.shape(slot, value, i, dtype, rank, request.Rows)
		}
		if dtype == tensor.String {
			if err := r.unpack(slot, info, value, fresh, data, part, start, bucket); err != nil {
				return err
			}
			continue
		}
		if fresh {
			if alone && slot.call.Landed(i) {
				value.Slab, slot.landed[i] = slot.landed[i], nil
				continue
			}
			slab, err := r.pool.Get(value.Size())
			if err != nil {
				return status.Errorf(status.ResourceExhausted, "%v", err)
			}
			value.Slab = slab
		}
		if !slot.rows {
			copy(value.Bytes(), data)
			continue
		}
		rowBytes := len(data) / bucket
		whole := value.Bytes()
		if len(whole) != rowBytes*request.Rows {
			return shapeChanged(info)
		}
		copy(whole[part.Start*rowBytes:], data[start*rowBytes:(start+part.Rows)*rowBytes])
	}
	return nil
}

func shapeChanged(info *TensorInfo) error {
	return status.Errorf(status.Internal, "output %q changed its shape between parts of one request", info.Alias)
}

// shape gives an output value the type and shape that output i of the Run has, with the rows of its own request.
func (r *runner) shape(slot *slot, value *tensor.Value, i int, dtype tensor.DType, rank, rows int) {
	value.Type = dtype
	value.Dims = value.Dims[:0]
	for d := range rank {
		value.Dims = append(value.Dims, slot.call.Dim(i, d))
	}
	if slot.rows {
		value.Dims[0] = int64(rows)
	}
}

// outputs makes room for n output values, reusing what an earlier use of the request left.
func (r *Request) outputs(n int) {
	if cap(r.Out) < n {
		r.Out = make([]tensor.Value, n)
	}
	r.Out = r.Out[:n]
}
