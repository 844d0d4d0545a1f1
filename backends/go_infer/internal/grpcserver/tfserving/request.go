package tfserving

import (
	"bytes"
	"sync"

	"sluicegate/go_infer/internal/grpcserver/tensorproto"
	"sluicegate/go_infer/internal/grpcserver/wire"
)

// predictRequest is a PredictRequest of which the frame was read; the tensors wait where they were received.
// Fields: model_spec 1, inputs 2 (map<string, TensorProto>), output_filter 3.
type predictRequest struct {
	spec   modelSpec
	inputs []input
	filter [][]byte

	proto tensorproto.Proto // of the input that is being read
	sizes []int             // of the outputs, while the answer is written
}

type input struct {
	alias  []byte
	tensor wire.Reader
}

var predictRequests = sync.Pool{New: func() any { return &predictRequest{} }}

func (q *predictRequest) recycle() {
	clear(q.inputs)
	clear(q.filter)
	dims := q.proto.Dims[:0]
	*q = predictRequest{inputs: q.inputs[:0], filter: q.filter[:0], sizes: q.sizes[:0]}
	q.proto.Dims = dims
	predictRequests.Put(q)
}

func (q *predictRequest) read(message wire.Reader) error {
	for field, kind := message.Next(); field != 0; field, kind = message.Next() {
		var err error
		switch {
		case field == 1 && kind == wire.Bytes:
			err = q.spec.read(message.Message())
		case field == 2 && kind == wire.Bytes:
			err = q.entry(message.Message())
		case field == 3 && kind == wire.Bytes:
			q.filter = append(q.filter, message.Text())
		default:
			message.Skip(kind)
		}
		if err != nil {
			return malformed("PredictRequest", err)
		}
	}
	return malformed("PredictRequest", message.Err())
}

// entry reads one entry of the map inputs; of two with the same key the last counts.
func (q *predictRequest) entry(message wire.Reader) error {
	given := input{}
	for field, kind := message.Next(); field != 0; field, kind = message.Next() {
		switch {
		case field == 1 && kind == wire.Bytes:
			given.alias = message.Text()
		case field == 2 && kind == wire.Bytes:
			given.tensor = message.Message()
		default:
			message.Skip(kind)
		}
	}
	if at := q.input(given.alias); at >= 0 {
		q.inputs[at] = given
	} else {
		q.inputs = append(q.inputs, given)
	}
	return message.Err()
}

// input is the position of the input with that alias, -1 if it was not given.
func (q *predictRequest) input(alias []byte) int {
	for i := range q.inputs {
		if bytes.Equal(q.inputs[i].alias, alias) {
			return i
		}
	}
	return -1
}
