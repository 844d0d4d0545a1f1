package machine

import (
	"errors"
	"os"
	"strconv"
	"syscall"
	"unsafe"
)

// schedBatch is SCHED_BATCH (sched(7)).
const schedBatch = 3

// Batch has the kernel schedule all threads of this process, and those that they will make, as batch work of the same niceness: one that
// wakes up does not take the processor from a thread that runs, but waits until that waits or its slice is over. Who sends many small
// requests so sends several before the first is read. On idle processors it changes nothing.
func Batch() error {
	seen := map[string]bool{}
	for fresh := true; fresh; { // threads may make threads meanwhile
		fresh = false
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		for _, thread := range threads {
			if seen[thread.Name()] {
				continue
			}
			seen[thread.Name()], fresh = true, true
			number, err := strconv.Atoi(thread.Name())
			if err != nil {
				return err
			}
			priority := int32(0) // struct sched_param: static priorities are for real-time policies
			_, _, failed := syscall.Syscall(syscall.SYS_SCHED_SETSCHEDULER, uintptr(number), schedBatch, uintptr(unsafe.Pointer(&priority)))
			if failed != 0 && !errors.Is(failed, syscall.ESRCH) {
				return os.NewSyscallError("sched_setscheduler", failed)
			}
		}
	}
	return nil
}
