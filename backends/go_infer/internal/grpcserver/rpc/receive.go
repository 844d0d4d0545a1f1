package rpc

import (
	"encoding/binary"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	grpcstatus "google.golang.org/grpc/status"
)

// Budget bounds the bytes that are held at the same time. Take refuses with an error that says so; what was taken is given back.
type Budget interface {
	Take(bytes int) error
	Give(bytes int)
}

// Receiver reads the messages of calls. gRPC's own way bounds each message, and nothing bounds all of them: a client may open any number of
// connections with hundreds of calls each, announce 64 MiB in every one, and send them. So messages are read here, in pieces: each
// piece is taken from the budget before it is read, and the refusal ends the call.
type Receiver struct {
	Most   int    // bytes of a message, before and after it is decompressed
	Budget Budget // of all messages that are read or answered; nil: not bounded
}

// firstPiece is what an announced message takes before any of it has come; then as much as has come, up to mostPiece.
const (
	firstPiece = 64 << 10
	mostPiece  = 4 << 20
)

// source is the call as gRPC's transport has it. Its type is internal and its methods are not promised: without them messages are
// received as gRPC does it, and counted when they are there.
type source interface {
	ReadMessageHeader(header []byte) error
	Read(bytes int) (mem.BufferSlice, error)
	RecvCompress() string
}

// Receive reads the next message of a call; io.EOF if there is none. What the message holds it holds until its Release, also after an error.
func (r *Receiver) Receive(stream grpc.ServerStream, m *Message) error {
	m.budget = r.Budget
	from, known := grpc.ServerTransportStreamFromContext(stream.Context()).(source)
	if !known {
		if err := stream.RecvMsg(m); err != nil {
			return err
		}
		return m.hold(m.Data.Len())
	}
	if err := from.ReadMessageHeader(m.head[:]); err != nil {
		return err
	}
	announced := binary.BigEndian.Uint32(m.head[1:])
	if uint64(announced) > uint64(r.Most) {
		return grpcstatus.Errorf(codes.ResourceExhausted, "grpc: received message larger than max (%d vs. %d)", announced, r.Most)
	}
	length := int(announced)
	for left := length; left > 0; {
		piece := min(left, max(firstPiece, min(length-left, mostPiece)))
		if err := m.hold(piece); err != nil {
			return err
		}
		data, err := from.Read(piece)
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		m.Data = append(m.Data, data...)
		left -= piece
	}
	switch m.head[0] {
	case 0:
		return nil
	case 1:
		return r.decompress(from.RecvCompress(), m)
	}
	return grpcstatus.Errorf(codes.Internal, "grpc: received unexpected payload format %d", m.head[0])
}

// decompress replaces what a message holds by what it says.
func (r *Receiver) decompress(name string, m *Message) error {
	if name == "" || name == encoding.Identity {
		return grpcstatus.Error(codes.Internal, "grpc: compressed flag set with identity or empty encoding")
	}
	compressor := encoding.GetCompressor(name)
	if compressor == nil {
		return grpcstatus.Errorf(codes.Unimplemented, "grpc: Decompressor is not installed for grpc-encoding %q", name)
	}
	compressed := m.Data
	m.Data = nil
	from := compressed.Reader()
	defer from.Close()
	defer compressed.Free()
	plain, err := compressor.Decompress(from)
	if err != nil {
		return grpcstatus.Errorf(codes.Internal, "grpc: failed to decompress the message: %v", err)
	}
	if closer, is := plain.(io.Closer); is {
		defer closer.Close()
	}
	for length, done := 0, false; !done; {
		var data mem.Buffer
		if data, done, err = fill(plain); err != nil {
			return grpcstatus.Errorf(codes.Internal, "grpc: failed to read decompressed data: %v", err)
		}
		m.Data = append(m.Data, data)
		if length += data.Len(); length > r.Most {
			return grpcstatus.Errorf(codes.ResourceExhausted, "grpc: received message after decompression larger than max %d", r.Most)
		}
		if err := m.hold(data.Len()); err != nil {
			return err
		}
	}
	return nil
}

// fill reads until a buffer is full or the reader at its end, after which it is not asked again: gRPC's give themselves back to a pool.
func fill(from io.Reader) (data mem.Buffer, done bool, err error) {
	pool := mem.DefaultBufferPool()
	buffer, n := pool.Get(firstPiece), 0
	for n < firstPiece && err == nil {
		var more int
		more, err = from.Read((*buffer)[n:firstPiece])
		n += more
	}
	if err != nil && !errors.Is(err, io.EOF) {
		pool.Put(buffer)
		return nil, false, err
	}
	*buffer = (*buffer)[:n]
	return mem.NewBuffer(buffer, pool), err != nil, nil
}

// hold takes so many more bytes from the budget.
func (m *Message) hold(bytes int) error {
	if m.budget == nil {
		return nil
	}
	if err := m.budget.Take(bytes); err != nil {
		return err
	}
	m.held += bytes
	return nil
}
