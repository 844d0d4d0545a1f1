// Package link speaks the gateway's multiplexed protocol on the ordinary port, after an Upgrade. docs/link.md is its specification.
//
// Contract: every request on a link is served by the same http.Handler as any other, in two steps if it is a Starter; a request's remaining time and its cancellation
// arrive as its context. Server.Offer takes the connection over; Drain and Stop end all links gently.
//
// Invariants: nothing is taken in before its length is known to be allowed; every stream gets exactly one last frame (END or CANCEL);
// what a peer can make this side hold is bounded by the windows, the number of streams and maxQueued; a panic ends its stream alone.
package link

import "fmt"

// Protocol is the token of the Upgrade.
const Protocol = "sluice-link/1"

const (
	version    = 1
	magic      = 0x4B4E4C53 // "SLNK", little-endian
	headerSize = 12
)

// Types of frames. A receiver who does not know a type passes over the frame if the type has the optional bit.
const (
	typeHello byte = iota + 1
	typeRequest
	typeResponse
	typeData
	typeWindow
	typeCancel
	typeLoad
	typeDrain
	typePing
	typePong
	typeError
	optional byte = 0x80
)

const flagEnd byte = 1

// Codes of ERROR: why a connection ends.
const (
	errProtocol uint16 = iota + 1
	errFlow
	errSize
	errStream
	errHead
	errVersion
)

// Codes of CANCEL: why a stream ends.
const (
	cancelUnwanted uint16 = iota + 1
	cancelDeadline
	cancelRefused
	cancelFailed
)

const (
	minMaxFrame   = 256 << 10
	maxMaxFrame   = 16 << 20
	chunk         = 64 << 10 // most bytes of body in one frame: nobody waits long behind it
	maxStream     = 1<<31 - 1
	maxWindow     = 1<<31 - 1
	maxRemembered = 4096 // bytes of a head that may be remembered
	maxSlots      = 1024
	maxFields     = 128
	maxText       = 256
	maxControl    = 1024
)

// violation is a peer's breach of the protocol: the connection is over.
type violation struct {
	code uint16
	text string
}

func (v *violation) Error() string { return v.text }

func breach(code uint16, format string, arguments ...any) error {
	return &violation{code, fmt.Sprintf(format, arguments...)}
}

// settings are what one side allows the other.
type settings struct {
	maxFrame, maxStreams, streamWindow, connectionWindow, maxHead, slots uint32
}

// silent is what a HELLO that says nothing means.
var silent = settings{maxFrame: minMaxFrame, streamWindow: 1 << 20, connectionWindow: 16 << 20, maxHead: 65535, slots: 256}

func (s *settings) each() [6]*uint32 {
	return [6]*uint32{&s.maxFrame, &s.maxStreams, &s.streamWindow, &s.connectionWindow, &s.maxHead, &s.slots}
}

// bounds are the least and greatest value of each setting, in the order of each.
var bounds = [6][2]uint32{{minMaxFrame, maxMaxFrame}, {0, 65535}, {chunk, maxWindow}, {chunk, maxWindow}, {1024, 65535}, {0, maxSlots}}

// Load is how busy a server is.
type Load struct {
	Queued, Running, Capacity uint32
	ServiceMicros             uint32
}

// frame is one decoded frame. Its slices point into the buffer it was read from.
type frame struct {
	kind      byte
	end       bool
	code      uint16 // status, priority or reason
	stream    uint32
	body      []byte // of REQUEST, RESPONSE and DATA; else the payload
	extra     []byte // fields beside the head, checked
	told      bool   // the handler is to see them
	deadline  uint32 // microseconds; 0: none
	credit    uint32
	head      *head
	announced settings
	load      Load
}
