// Package rpc is what every gRPC service here needs of gRPC: messages that are read where they lie, methods made of plain functions,
// and errors as statuses.
//
// Contract: a service is a table of methods; each is a function from a request to an answer or an error that knows its code. What
// happens around a call (counting, tracing, the status, the pushback of an overloaded server) is written once, in call.go.
package rpc

import (
	"fmt"
	"sync"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	// The codec of clients in this process; the server's is Codec.
	_ "google.golang.org/grpc/encoding/proto"
)

// Message is a message that was not decoded: as a request the buffers it came in, as an answer those it is to be sent in.
type Message struct {
	Data mem.BufferSlice

	head   [5]byte // what goes before a message: compressed or not, and its length
	budget Budget
	held   int // bytes taken from it
}

var messages = sync.Pool{New: func() any { return &Message{} }}

// Answer makes the message of one buffer of so many bytes, written by fill, which appends exactly that many.
func Answer(size int, fill func([]byte) []byte) (*Message, error) {
	pool := mem.DefaultBufferPool()
	buffer := pool.Get(size)
	written := fill((*buffer)[:0])
	if len(written) != size {
		return nil, fmt.Errorf("an answer of %d bytes was to have %d", len(written), size)
	}
	return &Message{Data: mem.BufferSlice{mem.NewBuffer(buffer, pool)}}, nil
}

// NewMessage makes an empty message for a request; Release ends its use.
func NewMessage() *Message { return messages.Get().(*Message) }

// Release lets go of the buffers. Nothing that was read from the message may be used any more.
func (m *Message) Release() {
	m.Data.Free()
	clear(m.Data)
	m.Data = m.Data[:0]
	if m.held > 0 {
		m.budget.Give(m.held)
	}
	m.budget, m.held = nil, 0
	messages.Put(m)
}

// Codec reads and writes protobuf as gRPC's own codec does, and Messages not at all.
type Codec struct{}

var _ encoding.CodecV2 = Codec{}

// Name is the content-subtype ("application/grpc+proto").
func (Codec) Name() string { return "proto" }

// Marshal encodes an answer. The buffers of a Message become gRPC's, which frees them once they are sent.
func (Codec) Marshal(v any) (mem.BufferSlice, error) {
	switch m := v.(type) {
	case *Message:
		return m.Data, nil
	case proto.Message:
		encoded, err := proto.Marshal(m)
		return mem.BufferSlice{mem.SliceBuffer(encoded)}, err
	}
	return nil, fmt.Errorf("%T is not a protobuf message", v)
}

// Unmarshal decodes a request. A Message keeps the buffers, until its call has ended.
func (Codec) Unmarshal(data mem.BufferSlice, v any) error {
	switch m := v.(type) {
	case *Message:
		data.Ref()
		m.Data = append(m.Data, data...)
		return nil
	case proto.Message:
		whole := data.MaterializeToBuffer(mem.DefaultBufferPool())
		defer whole.Free()
		return proto.Unmarshal(whole.ReadOnlyData(), m)
	}
	return fmt.Errorf("%T is not a protobuf message", v)
}
