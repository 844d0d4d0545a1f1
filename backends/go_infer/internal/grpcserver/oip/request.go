package oip

import (
	"math"
	"sync"
	"time"

	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/grpcserver/wire"
	"sluicegate/go_infer/internal/tensor"
	"sluicegate/go_infer/internal/triton"
)

// inferRequest is a ModelInferRequest of which the frame was read; the tensors wait where they were received.
// Fields: model_name 1, model_version 2, id 3, parameters 4, inputs 5, outputs 6, raw_input_contents 7.
type inferRequest struct {
	name, version, id []byte
	signature         string
	timeout           time.Duration // 0: none
	class             batch.Class   // how urgent it is
	final             bool          // the answer shall say that it is the last (triton_enable_empty_final_response)

	inputs  []input
	outputs []output
	raw     []wire.Reader
}

// input is an InferInputTensor: name 1, datatype 2, shape 3, parameters 4, contents 5.
type input struct {
	name, datatype []byte
	dims           []int64
	contents       wire.Reader
	typed          bool // contents were given
}

// output is an InferRequestedOutputTensor (name 1, parameters 2), and later what is answered for it.
type output struct {
	name    []byte
	classes int // best classes in place of the values; 0: the values

	at    int // position in the signature
	value tensor.Value
}

var inferRequests = sync.Pool{New: func() any { return &inferRequest{class: batch.Default} }}

func (q *inferRequest) recycle() {
	for i := range q.inputs {
		q.inputs[i] = input{dims: q.inputs[i].dims[:0]}
	}
	clear(q.outputs)
	clear(q.raw)
	*q = inferRequest{class: batch.Default, inputs: q.inputs[:0], outputs: q.outputs[:0], raw: q.raw[:0]}
	inferRequests.Put(q)
}

func (q *inferRequest) read(message wire.Reader) (err error) {
	for field, kind := message.Next(); field != 0 && err == nil; field, kind = message.Next() {
		if kind != wire.Bytes {
			message.Skip(kind)
			continue
		}
		switch field {
		case 1:
			q.name = message.Text()
		case 2:
			q.version = message.Text()
		case 3:
			q.id = message.Text()
		case 4:
			err = parameter(message.Message(), q.parameter)
		case 5:
			err = q.input(message.Message())
		case 6:
			err = q.output(message.Message())
		case 7:
			q.raw = append(q.raw, message.Message())
		default:
			message.Skip(kind)
		}
	}
	if err == nil {
		err = message.Err()
	}
	if err == wire.ErrMalformed {
		err = triton.Refuse("ModelInferRequest cannot be parsed: %v", err)
	}
	return err
}

func (q *inferRequest) input(message wire.Reader) error {
	if len(q.inputs) < cap(q.inputs) { // with the dims that an earlier request left
		q.inputs = q.inputs[:len(q.inputs)+1]
	} else {
		q.inputs = append(q.inputs, input{})
	}
	in := &q.inputs[len(q.inputs)-1]
	for field, kind := message.Next(); field != 0; field, kind = message.Next() {
		switch {
		case field == 1 && kind == wire.Bytes:
			in.name = message.Text()
		case field == 2 && kind == wire.Bytes:
			in.datatype = message.Text()
		case field == 3 && kind == wire.Varint:
			in.dims = append(in.dims, int64(message.Varint()))
		case field == 3 && kind == wire.Bytes:
			packed := message.Message()
			for packed.Len() > 0 {
				in.dims = append(in.dims, int64(packed.Varint()))
			}
			if err := packed.Err(); err != nil {
				return err
			}
		case field == 4 && kind == wire.Bytes:
			if err := parameter(message.Message(), tensorParameter(nil)); err != nil {
				return err
			}
		case field == 5 && kind == wire.Bytes:
			in.contents, in.typed = message.Message(), true
		default:
			message.Skip(kind)
		}
	}
	return message.Err()
}

func (q *inferRequest) output(message wire.Reader) error {
	out := output{}
	for field, kind := message.Next(); field != 0; field, kind = message.Next() {
		switch {
		case field == 1 && kind == wire.Bytes:
			out.name = message.Text()
		case field == 2 && kind == wire.Bytes:
			if err := parameter(message.Message(), tensorParameter(&out)); err != nil {
				return err
			}
		default:
			message.Skip(kind)
		}
	}
	q.outputs = append(q.outputs, out)
	return message.Err()
}

// value is an InferParameter: bool_param 1, int64_param 2, string_param 3, double_param 4, uint64_param 5.
type value struct {
	choice int // the field; 0: none
	number uint64
	text   []byte
}

// whole is the value as a whole number, in whatever way that was written.
func (v value) whole(name []byte, most int64) (int64, error) {
	switch {
	case v.choice == 2 && int64(v.number) >= 0 && int64(v.number) <= most, v.choice == 5 && v.number <= uint64(most):
		return int64(v.number), nil
	}
	return 0, triton.NotWhole(name, most)
}

// parameter reads one entry of a map<string, InferParameter>.
func parameter(message wire.Reader, visit func(name []byte, v value) error) error {
	var name []byte
	v := value{}
	for field, kind := message.Next(); field != 0; field, kind = message.Next() {
		switch {
		case field == 1 && kind == wire.Bytes:
			name = message.Text()
		case field == 2 && kind == wire.Bytes:
			choice := message.Message()
			for field, kind := choice.Next(); field != 0; field, kind = choice.Next() {
				switch {
				case (field == 1 || field == 2 || field == 5) && kind == wire.Varint:
					v = value{choice: field, number: choice.Varint()}
				case field == 3 && kind == wire.Bytes:
					v = value{choice: field, text: choice.Text()}
				case field == 4 && kind == wire.Fixed64:
					v = value{choice: field, number: choice.Fixed64()}
				default:
					choice.Skip(kind)
				}
			}
			if err := choice.Err(); err != nil {
				return err
			}
		default:
			message.Skip(kind)
		}
	}
	if err := message.Err(); err != nil {
		return err
	}
	return visit(name, v)
}

// parameter takes one of the request's.
func (q *inferRequest) parameter(name []byte, v value) error {
	switch string(name) {
	case "timeout": // microseconds
		us, err := v.whole(name, triton.LongestTimeout)
		q.timeout = time.Duration(us) * time.Microsecond
		return err
	case "priority":
		level, err := v.whole(name, math.MaxInt64)
		q.class = batch.ClassOfLevel(uint64(level))
		return err
	case "signature_name":
		if v.choice != 3 {
			return triton.NotText(name)
		}
		q.signature = string(v.text)
	case "triton_enable_empty_final_response":
		q.final = v.choice == 1 && v.number != 0
	case "sequence_id", "sequence_start", "sequence_end":
		if v.number != 0 || len(v.text) > 0 {
			return triton.Sequence(name)
		}
	default:
		return triton.Reserved(name)
	}
	return nil
}

// tensorParameter takes one of an input's, or of a requested output's.
func tensorParameter(out *output) func(name []byte, v value) error {
	return func(name []byte, v value) error {
		switch string(name) {
		case "shared_memory_region":
			return triton.SharedMemory(name)
		case "classification":
			if out != nil {
				classes, err := v.whole(name, math.MaxInt32)
				out.classes = int(classes)
				return err
			}
		}
		return nil
	}
}
