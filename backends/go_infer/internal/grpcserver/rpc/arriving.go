package rpc

import (
	"sync"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"sluicegate/go_infer/internal/stop"
)

// arrivals are the calls whose message has not arrived, so that a server that stops can refuse them.
type arrivals struct {
	mu      sync.Mutex
	over    bool
	calls   map[*arrival]struct{}
	refused int64
}

// arrival is a call whose message arrives.
type arrival struct{ call ender }

// ender is the call as gRPC's transport has it (see source): WriteStatus ends it, and the reading of its message with it.
type ender interface {
	WriteStatus(status *grpcstatus.Status) error
}

var errArriving = grpcstatus.New(codes.Unavailable, stop.ErrArriving.Error())

// begin is called before a message is read; the error says that none is any more.
func (a *arrivals) begin(one *arrival) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
		a.refused++
		return errArriving.Err()
	}
	if a.calls == nil {
		a.calls = map[*arrival]struct{}{}
	}
	a.calls[one] = struct{}{}
	return nil
}

// end is called when it was read, or could not be.
func (a *arrivals) end(one *arrival) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.calls, one)
}

// refuse ends all that arrives.
func (a *arrivals) refuse() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = true
	for one := range a.calls {
		if one.call != nil && one.call.WriteStatus(errArriving) == nil {
			a.refused++
		}
	}
}

func (a *arrivals) count() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.refused
}
