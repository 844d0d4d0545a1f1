// Package session is the thin cgo layer over TensorFlow's C API: load a SavedModel, run it, free it.
//
// Invariants: everything is freed explicitly, nothing has a finalizer; a Run is one C call on one prepared struct, which copies the
// outputs to where the caller wants them and frees TensorFlow's; only an output that has no such place, or does not fit, stays in
// TensorFlow's memory and costs a second call, Release. A Call belongs to one goroutine at a time; a Session outlives its Calls.
// Live counts the tensors that exist, so a test can see a leak.
package session

/*
#include <stdlib.h>
#include "run.h"
*/
import "C"

import (
	"fmt"
	"strconv"
	"strings"
	"unsafe"

	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/tensor"
)

// MaxRank is the most dimensions a tensor may have here.
const MaxRank = C.SG_MAX_RANK

// ServeTag is the tag under which tf.saved_model.save writes the graph that serves.
const ServeTag = "serve"

// Version is TensorFlow's.
func Version() string { return C.GoString(C.TF_Version()) }

// Live is the number of TensorFlow tensors that exist through this package.
func Live() int64 { return int64(C.sg_live()) }

// TameMalloc bounds the C allocator's arenas; call it once, before the first Load.
func TameMalloc() { C.sg_tame_malloc() }

// Trim gives memory freed by an unload back to the system.
func Trim() { C.sg_trim() }

// MakePools makes the thread pools that all sessions of the process share, at the priority of the thread that calls it. Without it the
// first Load makes them: if that gives way to others, so do the pools, for ever.
func MakePools(intraOp int) error {
	options := configProto(intraOp)
	config := C.CBytes(options)
	defer C.free(config)
	failure := C.TF_NewStatus()
	defer C.TF_DeleteStatus(failure)
	C.sg_make_pools(config, C.size_t(len(options)), failure)
	if code := C.TF_GetCode(failure); code != C.TF_OK {
		return status.Errorf(status.Code(code), "TensorFlow cannot start: %s", C.GoString(C.TF_Message(failure)))
	}
	return nil
}

// Session is a loaded SavedModel.
type Session struct {
	session *C.TF_Session
	graph   *C.TF_Graph
}

// Load reads the SavedModel in directory, giving way to other threads by nice. The second result is its MetaGraphDef, serialized.
func Load(directory string, intraOp, nice int) (*Session, []byte, error) {
	path, tag := C.CString(directory), C.CString(ServeTag)
	defer C.free(unsafe.Pointer(path))
	defer C.free(unsafe.Pointer(tag))
	options := configProto(intraOp)
	config := C.CBytes(options)
	defer C.free(config)

	var loaded C.sg_loaded
	C.sg_load(path, tag, config, C.size_t(len(options)), C.int(nice), &loaded)
	defer C.sg_free_meta(&loaded)
	if code := C.TF_GetCode(loaded.status); code != C.TF_OK {
		return nil, nil, status.Errorf(status.Code(code), "%s", C.GoString(C.TF_Message(loaded.status)))
	}
	meta := C.GoBytes(unsafe.Pointer(loaded.meta_graph.data), C.int(loaded.meta_graph.length))
	return &Session{session: loaded.session, graph: loaded.graph}, meta, nil
}

// Close frees the model. Every Call made from it must be closed before.
func (s *Session) Close() {
	C.sg_unload(s.session, s.graph)
	s.session, s.graph = nil, nil
}

// configProto is tensorflow.ConfigProto with intra_op_parallelism_threads (2) and inter_op_parallelism_threads (5) = -1, which
// makes ops run in the thread that called Run: for the small graphs of a server a hand-over costs more than the op.
func configProto(intraOp int) []byte {
	config := []byte{2 << 3, byte(intraOp & 0x7f)}
	config = append(config, 5<<3)
	for range 9 {
		config = append(config, 0xff) // -1 as a 64-bit varint
	}
	return append(config, 0x01)
}

// Call is a prepared Run: which tensors go in, which come out.
type Call struct {
	call    *C.sg_call
	in, out []C.sg_value
	places  []C.sg_place
}

// NewCall prepares a call. The names are tensor names of the graph ("serving_default_image:0").
func (s *Session) NewCall(feeds, fetches []string) (*Call, error) {
	call := C.sg_new_call(s.session, C.int(len(feeds)), C.int(len(fetches)))
	c := &Call{
		call:   call,
		in:     unsafe.Slice(call.in, len(feeds)),
		out:    unsafe.Slice(call.out, len(fetches)),
		places: unsafe.Slice(call.places, len(fetches)),
	}
	for _, side := range []struct {
		names []string
		slots []C.TF_Output
	}{{feeds, unsafe.Slice(call.feeds, len(feeds))}, {fetches, unsafe.Slice(call.fetches, len(fetches))}} {
		for i, name := range side.names {
			if err := s.find(name, &side.slots[i]); err != nil {
				c.Close()
				return nil, err
			}
		}
	}
	return c, nil
}

func (s *Session) find(name string, found *C.TF_Output) error {
	operation, output, _ := strings.Cut(name, ":")
	index := 0
	if output != "" {
		var err error
		if index, err = strconv.Atoi(output); err != nil {
			return fmt.Errorf("tensor name %q: what follows ':' is not a number", name)
		}
	}
	text := C.CString(operation)
	defer C.free(unsafe.Pointer(text))
	if C.sg_find(s.graph, text, C.int(index), found) == 0 {
		return fmt.Errorf("the graph has no tensor %q that the signature names", name)
	}
	return nil
}

// FeedType is the type that the graph has at input i.
func (c *Call) FeedType(i int) tensor.DType {
	return tensor.DType(C.TF_OperationOutputType(unsafe.Slice(c.call.feeds, len(c.in))[i]))
}

// FetchType is the type that the graph has at output i.
func (c *Call) FetchType(i int) tensor.DType {
	return tensor.DType(C.TF_OperationOutputType(unsafe.Slice(c.call.fetches, len(c.out))[i]))
}

// SetInput says what input i is for the next Run: memory of a slab, which must stay until Run returns; strings are packed in it
// (tensor.Packer). It refuses more than MaxRank dimensions.
func (c *Call) SetInput(i int, dtype tensor.DType, dims []int64, data unsafe.Pointer, bytes int) error {
	if len(dims) > MaxRank {
		return status.Errorf(status.InvalidArgument, "a tensor of %d dimensions; at most %d are served", len(dims), MaxRank)
	}
	if !tensor.Possible(dims) {
		return status.Errorf(status.InvalidArgument, "a tensor of shape %s is not possible", tensor.ShapeText(dims, true))
	}
	value := &c.in[i]
	value._type = C.TF_DataType(dtype)
	value.rank = C.int(len(dims))
	for d, dim := range dims {
		value.dims[d] = C.int64_t(dim)
	}
	value.data = data
	value.bytes = C.size_t(bytes)
	return nil
}

// SetOutput says where output i shall land in the next Run: C memory with room for so many bytes, which must stay until Run returns.
// With nil it stays in TensorFlow's memory.
func (c *Call) SetOutput(i int, memory unsafe.Pointer, room int) {
	c.places[i] = C.sg_place{memory: memory, room: C.size_t(room)}
}

// Run runs the graph in this thread. After success the outputs can be read: those that landed as long as their memory is there, the
// others until Release. After an error nothing is left to release.
func (c *Call) Run() error {
	if code := C.sg_run(c.call); code != C.TF_OK {
		return status.Errorf(status.Code(code), "%s", C.GoString(C.TF_Message(c.call.status)))
	}
	return nil
}

// RunAside is Run for nobody who waits, so that no load pauses for it; in a thread that gives way to others by nice, if that is more than 0.
func (c *Call) RunAside(nice int) error {
	if code := C.sg_run_aside(c.call, C.int(nice)); code != C.TF_OK {
		return status.Errorf(status.Code(code), "%s", C.GoString(C.TF_Message(c.call.status)))
	}
	return nil
}

// Landed says whether output i is where SetOutput wanted it, and not in TensorFlow's memory.
func (c *Call) Landed(i int) bool {
	return c.places[i].memory != nil && c.out[i].data == c.places[i].memory
}

// Output describes output i: its type, its rank, and its memory, which is packed if it is strings (tensor.Unpack).
func (c *Call) Output(i int) (tensor.DType, int, []byte) {
	value := &c.out[i]
	return tensor.DType(value._type), int(value.rank), unsafe.Slice((*byte)(value.data), int(value.bytes))
}

// Dim is dimension d of output i.
func (c *Call) Dim(i, d int) int64 { return int64(c.out[i].dims[d]) }

// Release lets go of the outputs that are in TensorFlow's memory; it costs a C call only if there are any.
func (c *Call) Release() {
	if c.call.held > 0 {
		C.sg_release(c.call)
	}
}

// Close frees the call.
func (c *Call) Close() {
	C.sg_free_call(c.call)
	c.call = nil
}
