package grpcserver

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	grpcmetadata "google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"sluicegate/go_infer/internal/api"
	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/grpcserver/rpc"
	pb "sluicegate/go_infer/internal/pb/inference"
	"sluicegate/go_infer/internal/pb/serving"
	"sluicegate/go_infer/internal/repository"
	"sluicegate/go_infer/internal/stop"
)

// bounded is a server whose messages may hold so many bytes together.
func bounded(t *testing.T, most int) (*running, *api.Budget) {
	t.Helper()
	budget := api.NewBudget(most)
	r := start(t, digits(t), batch.Limits{MaxBatch: 32, MaxQueue: 1024, Slots: 1, Coalesce: true}, func(o *Options, p *Parts) {
		o.Bodies, o.MaxMessage, p.Around.Pushback = budget, 64<<20, time.Second
	})
	t.Cleanup(func() { eventually(t, "everything is given back", func() bool { return budget.Held() == 0 }) })
	return r, budget
}

func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("not within 10 s: %s", what)
			return
		}
	}
}

// padded is a request that is refused for its model, and so many bytes long at least.
func padded(bytes int) *serving.PredictRequest {
	return &serving.PredictRequest{ModelSpec: spec("none", ""), OutputFilter: []string{strings.Repeat("x", bytes)}}
}

func predicted(t *testing.T, r *running, in *serving.PredictRequest, options ...grpc.CallOption) error {
	t.Helper()
	return r.conn.Invoke(soon(t), predict, in, &serving.PredictResponse{}, options...)
}

// rawCall is a call on a connection of its own that sends what it is told.
type rawCall struct {
	conn   net.Conn
	framer *http2.Framer
}

// openCall begins a call of Predict and announces a message of so many bytes.
func openCall(t *testing.T, r *running, announced uint32) *rawCall {
	t.Helper()
	conn, err := net.Dial("tcp", r.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(conn, http2.ClientPreface)
	c := &rawCall{conn, http2.NewFramer(conn, conn)}
	var head bytes.Buffer
	encoder := hpack.NewEncoder(&head)
	for _, field := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", "/tensorflow.serving.PredictionService/Predict"}, {":authority", "x"},
		{"content-type", "application/grpc"}, {"te", "trailers"},
	} {
		_ = encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
	}
	prefix := binary.BigEndian.AppendUint32([]byte{0}, announced)
	for _, err := range []error{
		c.framer.WriteSettings(), c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head.Bytes(), EndHeaders: true}),
		c.framer.WriteData(1, false, prefix),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// send sends bytes of the message, at most what fits into the window that every call has.
func (c *rawCall) send(t *testing.T, bytes int) {
	t.Helper()
	for ; bytes > 0; bytes -= 16 << 10 {
		if err := c.framer.WriteData(1, false, make([]byte, min(bytes, 16<<10))); err != nil {
			t.Fatal(err)
		}
	}
}

// ended waits for the call's trailers, and tells them.
func (c *rawCall) ended(t *testing.T) map[string]string {
	t.Helper()
	decoder := hpack.NewDecoder(4096, nil)
	for {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if headers, is := frame.(*http2.HeadersFrame); is && headers.StreamEnded() {
			fields, err := decoder.DecodeFull(headers.HeaderBlockFragment())
			if err != nil {
				t.Fatal(err)
			}
			told := map[string]string{}
			for _, field := range fields {
				told[field.Name] = field.Value
			}
			return told
		}
	}
}

// A window that changes is found by PINGs, one with nearly every request of a client that waits for its answers, and may become 16 MiB.
func TestTheWindowOfACallIsTold(t *testing.T) {
	const window = 300 << 10
	r := start(t, digits(t), usual, func(o *Options, _ *Parts) { o.Window = window })
	call := openCall(t, r, 100<<10)
	call.send(t, 100<<10)
	told := uint32(0)
	for {
		frame, err := call.framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if value, is := frame.Value(http2.SettingInitialWindowSize); is {
				told = value
			}
		case *http2.PingFrame:
			t.Fatal("the client is asked how far away it is")
		case *http2.HeadersFrame:
			if told != window {
				t.Errorf("a call has a window of %d bytes, wanted %d", told, window)
			}
			if !frame.StreamEnded() {
				t.Errorf("the message is not refused: %v", frame)
			}
			return
		}
	}
}

func TestMessagesTakeMemoryAsTheyArriveAndAreRefusedBeyondTheBudget(t *testing.T) {
	const most = 200 << 10
	r, budget := bounded(t, most)
	var calls []*rawCall
	for range 3 { // 64 KiB each, of the 48 MiB that each announces
		c := openCall(t, r, 48<<20)
		calls = append(calls, c)
		want := int64(len(calls)) * (64 << 10)
		eventually(t, "the first piece is taken", func() bool { return budget.Held() == want })
	}
	fourth := openCall(t, r, 48<<20)
	told := fourth.ended(t)
	if told["grpc-status"] != strconv.Itoa(int(codes.Unavailable)) || !strings.Contains(told["grpc-message"], "--max_bodies") || told[rpc.PushbackKey] == "" {
		t.Errorf("a message without room ended with %v", told)
	}
	calls[0].send(t, 64<<10) // its next piece is one too many
	if told := calls[0].ended(t); told["grpc-status"] != strconv.Itoa(int(codes.Unavailable)) {
		t.Errorf("a message that grew without room ended with %v", told)
	}
	eventually(t, "what was refused is given back", func() bool { return budget.Held() == 2*(64<<10) })
	if err := predicted(t, r, padded(60<<10)); grpcstatus.Code(err) != codes.NotFound {
		t.Errorf("what fits beside them: %v", err)
	}
	for _, c := range calls[1:] {
		c.conn.Close()
	}
}

func TestDrainCutsOffMessagesThatHaveNotArrived(t *testing.T) {
	r, budget := bounded(t, 1<<20)
	call := openCall(t, r, 48<<20)
	eventually(t, "the call is there", func() bool { return budget.Held() > 0 })
	ctx, cancel := context.WithTimeout(context.Background(), 800*time.Millisecond)
	defer cancel()
	drained := make(chan error, 1)
	go func() { drained <- r.Drain(ctx, 0) }()
	told := call.ended(t)
	if told["grpc-status"] != strconv.Itoa(int(codes.Unavailable)) || told["grpc-message"] != stop.ErrArriving.Error() {
		t.Errorf("it ended with %v", told)
	}
	call.conn.Close()
	if err := <-drained; err != nil {
		t.Errorf("the server did not end in time: %v", err)
	}
	if cut := r.CutOff(); cut != (stop.Cut{Arriving: 1}) {
		t.Errorf("%+v are counted as cut off", cut)
	}
}

// halfRead is a call whose answer is larger than what its client takes before it reads, and whose handler has returned.
func halfRead(t *testing.T, r *running) grpc.ClientStream {
	t.Helper()
	const rows = 2000 // 100 kB in the answer; 64 KiB fit into the window, and as many into gRPC's own buffer
	conn, err := grpc.NewClient("passthrough:///"+r.address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithInitialWindowSize(64<<10))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	before := r.parts.Around.Registry.InFlight()
	call, err := conn.NewStream(soon(t), &grpc.StreamDesc{}, predict)
	if err != nil {
		t.Fatal(err)
	}
	in := &serving.PredictRequest{ModelSpec: spec("digits", ""), Inputs: inputs("image", floats(make([]float32, rows*64), rows, 64))}
	if err := errors.Join(call.SendMsg(in), call.CloseSend()); err != nil {
		t.Fatal(err)
	}
	if _, err := call.Header(); err != nil { // the answer has begun
		t.Fatal(err)
	}
	eventually(t, "the handler has returned", func() bool { return r.parts.Around.Registry.InFlight() == before && r.around.Answering() == 0 })
	return call
}

func TestADrainLetsASlowReaderHaveTheWholeOfItsTime(t *testing.T) {
	r := start(t, digits(t), usual)
	call := halfRead(t, r)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	drained := make(chan error, 1)
	go func() { drained <- r.Drain(ctx, 0) }()
	time.Sleep(time.Until(stop.Cutoff(ctx)) + 150*time.Millisecond) // for others it would be too late
	answer := &serving.PredictResponse{}
	if err := call.RecvMsg(answer); err != nil || proto.Size(answer) < 70<<10 {
		t.Errorf("%d bytes came: %v", proto.Size(answer), err)
	}
	if err := <-drained; err != nil || r.CutOff() != (stop.Cut{}) {
		t.Errorf("the drain ended with %v and cut off %+v", err, r.CutOff())
	}
}

func TestADrainCountsWhoNeverReads(t *testing.T) {
	r := start(t, digits(t), usual)
	halfRead(t, r)
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if err := r.Drain(ctx, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the drain ended with %v", err)
	}
	if cut := r.CutOff(); cut != (stop.Cut{Answering: 1}) {
		t.Errorf("%+v are counted as cut off", cut)
	}
}

func TestAMessageIsReceivedWholeWhateverItsSize(t *testing.T) {
	r, _ := bounded(t, 256<<20)
	for _, size := range []int{0, 1, 64<<10 - 40, 64 << 10, 64<<10 + 1, 1 << 20, 9<<20 + 7} {
		for _, options := range [][]grpc.CallOption{nil, {grpc.UseCompressor(gzip.Name)}} {
			if err := predicted(t, r, padded(size), options...); grpcstatus.Code(err) != codes.NotFound {
				t.Errorf("%d bytes, %d options: %v", size, len(options), err)
			}
		}
	}
	filled := proto.Clone(small).(*serving.PredictRequest)
	for _, options := range [][]grpc.CallOption{nil, {grpc.UseCompressor(gzip.Name)}} {
		if err := predicted(t, r, filled, options...); err != nil {
			t.Error(err)
		}
	}
}

func TestWhatAMessageBecomesCountsToo(t *testing.T) {
	r, budget := bounded(t, 4<<20)
	for _, c := range []struct {
		bytes int
		code  codes.Code
	}{{3 << 20, codes.NotFound}, {5 << 20, codes.Unavailable}} {
		var trailer grpcmetadata.MD
		err := predicted(t, r, padded(c.bytes), grpc.UseCompressor(gzip.Name), grpc.Trailer(&trailer)) // a few kB on the wire
		if grpcstatus.Code(err) != c.code {
			t.Errorf("%d bytes: %v", c.bytes, err)
		}
		if told := len(trailer.Get(rpc.PushbackKey)) > 0; told != (c.code == codes.Unavailable) {
			t.Errorf("%d bytes: when to come again: %v", c.bytes, trailer)
		}
		eventually(t, "it is given back", func() bool { return budget.Held() == 0 })
	}
}

func TestMessagesOfAStreamCountUntilTheyAreAnswered(t *testing.T) {
	r, budget := bounded(t, 256<<10)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	stream, err := r.conn.NewStream(ctx, streamDesc, service+"ModelStreamInfer")
	if err != nil {
		t.Fatal(err)
	}
	answer := &pb.ModelStreamInferResponse{}
	for range 50 { // far more than the budget, one after the other
		if err := stream.SendMsg(&pb.ModelInferRequest{ModelName: "none", Id: strings.Repeat("x", 100<<10)}); err != nil {
			t.Fatal(err)
		}
		if err := stream.RecvMsg(answer); err != nil || !strings.Contains(answer.ErrorMessage, "unknown model") {
			t.Fatal(answer, err)
		}
	}
	if err := stream.SendMsg(&pb.ModelInferRequest{ModelName: "none", Id: strings.Repeat("x", 300<<10)}); err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(answer); grpcstatus.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "--max_bodies") {
		t.Errorf("a message that is larger than all may be: %v", err)
	}
	if told := stream.Trailer().Get(rpc.PushbackKey); len(told) != 1 || told[0] != "1000" {
		t.Errorf("when to come again: %q", told)
	}
	eventually(t, "it is given back", func() bool { return budget.Held() == 0 })
}

// TestAStreamsTrailerDoesNotGrowWithItsRefusals: a message that is refused, and does not end its stream, has its error and no trailer.
func TestAStreamsTrailerDoesNotGrowWithItsRefusals(t *testing.T) {
	r := start(t, digits(t), batch.Limits{MaxBatch: 32, MaxQueue: 1, Slots: 1, Coalesce: true, Delay: time.Hour})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	waits, leave := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = r.conn.Invoke(waits, service+"ModelInfer", image("waits", make([]float32, 64)), &pb.ModelInferResponse{})
	}()
	defer func() { leave(); <-ended }()
	lease, err := r.repo.Acquire(ctx, "digits", repository.Wanted{})
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Release()
	eventually(t, "the queue is full", func() bool { return lease.Model.Waiting() == 1 })
	stream, err := r.conn.NewStream(ctx, streamDesc, service+"ModelStreamInfer")
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		answer := &pb.ModelStreamInferResponse{}
		if err := stream.SendMsg(image("refused", make([]float32, 64))); err != nil {
			t.Fatal(err)
		}
		if err := stream.RecvMsg(answer); err != nil || !strings.Contains(answer.ErrorMessage, "queue") {
			t.Fatal(answer, err)
		}
	}
	_ = stream.CloseSend()
	if err := stream.RecvMsg(&pb.ModelStreamInferResponse{}); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if told := stream.Trailer().Get(rpc.PushbackKey); len(told) != 0 {
		t.Errorf("a stream that ended well has %d trailers that say when to come again", len(told))
	}
}

func TestAStreamIsToldWhyAMessageIsRefusedInTheWordsOfACall(t *testing.T) {
	r, _ := bounded(t, 1<<30)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	said := map[string]string{}
	for _, method := range []string{"ModelInfer", "ModelStreamInfer"} {
		stream, err := r.conn.NewStream(ctx, streamDesc, service+method)
		if err == nil {
			err = stream.SendMsg(&pb.ModelInferRequest{ModelName: "none", Id: strings.Repeat("x", 65<<20)})
		}
		if err == nil || errors.Is(err, io.EOF) { // refused before all of it was sent
			err = stream.RecvMsg(&pb.ModelStreamInferResponse{})
		}
		if grpcstatus.Code(err) != codes.ResourceExhausted {
			t.Fatalf("%s: %v", method, err)
		}
		said[method] = grpcstatus.Convert(err).Message()
	}
	if said["ModelInfer"] != said["ModelStreamInfer"] {
		t.Errorf("they are told otherwise: %q", said)
	}
}
