package session

/*
#include "pace.h"
*/
import "C"

import (
	"syscall"
	"time"
)

// SetPauses says that a load, while requests are served, pauses for so many times as long as it reads (pace.h says why); 0: it does not.
func SetPauses(times float64) { C.sg_set_pauses(C.double(times)) }

// PauseAfter is for work on a load that is done in Go: after so long a piece of it it pauses as one does that is done in C.
func PauseAfter(worked time.Duration) { C.sg_pause_after(C.int64_t(worked)) }

// Paused is how long loads have paused.
func Paused() time.Duration { return time.Duration(C.sg_paused()) }

// Pieces is the number of pieces that variables were read in.
func Pieces() int64 { return int64(C.sg_pieces()) }

// Hurry has loads pause no more until the result is called. Threads that load at the niceness get this process's, if the system allows
// that; raised says whether it did.
func Hurry(nice int) (done func(), raised bool) {
	normal, err := syscall.Getpriority(syscall.PRIO_PROCESS, syscall.Getpid())
	own := 20 - normal // the system call's answer has no negative numbers
	if err != nil {
		own = nice
	}
	refused := C.sg_hurry(1, C.int(nice), C.int(own))
	return func() { C.sg_hurry(-1, 0, 0) }, refused == 0
}
