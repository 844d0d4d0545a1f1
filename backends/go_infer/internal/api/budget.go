package api

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"sluicegate/go_infer/internal/status"
)

// Budget bounds the bytes of all bodies that are held at the same time, as they arrive and as they become. What a client announces and
// does not send is not counted, and takes no memory. A nil Budget bounds nothing.
type Budget struct {
	most int64
	held atomic.Int64
}

// NewBudget is one of so many bytes.
func NewBudget(bytes int) *Budget { return &Budget{most: int64(bytes)} }

// Held is how many bytes are held now.
func (b *Budget) Held() int64 { return b.held.Load() }

// retryBodies is after how long a client may come again: bodies are soon read, or given up.
const retryBodies = time.Second

// Take takes so many bytes, or refuses.
func (b *Budget) Take(bytes int) error {
	if b.held.Add(int64(bytes)) <= b.most {
		return nil
	}
	b.held.Add(-int64(bytes))
	return &status.Error{Code: status.Unavailable, RetryAfter: retryBodies,
		Message: fmt.Sprintf("the requests that are being read or answered hold the %d bytes that --max_bodies allows; retry later", b.most)}
}

// Give gives bytes back that were taken.
func (b *Budget) Give(bytes int) { b.held.Add(-int64(bytes)) }

// hold counts the exchange's body as so many bytes, if that is more than it was.
func (x *Exchange) hold(bytes int) error {
	if x.budget == nil || bytes <= x.held {
		return nil
	}
	if err := x.budget.Take(bytes - x.held); err != nil {
		x.Header.Set("Connection", "close") // the rest of the body is not worth reading
		return err
	}
	x.held = bytes
	return nil
}

func (x *Exchange) letGo() {
	if x.held > 0 {
		x.budget.Give(x.held)
	}
	x.budget, x.held = nil, 0
}

// firstPiece is how much memory an announced body gets before any of it has come; then four times what has come.
const firstPiece = 64 << 10

// readAnnounced reads a body of that length into the pooled buffer, which grows with what arrives.
func (x *Exchange) readAnnounced(length int) error {
	for len(x.Body) < length {
		want := min(length, max(firstPiece, 4*len(x.Body), cap(x.Body)))
		if err := x.hold(want); err != nil {
			return err
		}
		if cap(x.Body) < want {
			x.Body = append(make([]byte, 0, want), x.Body...)
		}
		at := len(x.Body)
		n, err := io.ReadFull(x.Request.Body, x.Body[at:want])
		x.Body = x.Body[:at+n]
		if err != nil {
			return bodyError(err)
		}
	}
	return nil
}

// grow makes room for more of a body whose length nobody said.
func (x *Exchange) grow() error {
	if len(x.Body) == cap(x.Body) {
		x.Body = append(x.Body, 0)[:len(x.Body)]
	}
	return x.hold(min(cap(x.Body), len(x.Body)+firstPiece))
}
