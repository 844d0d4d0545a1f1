package machine

import (
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"testing"
)

// TestEveryThreadBecomesBatchWork runs in a process of its own: the tests of others need not.
func TestEveryThreadBecomesBatchWork(t *testing.T) {
	if os.Getenv("BATCH_THREADS") == "" {
		child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		child.Env = append(os.Environ(), "BATCH_THREADS=1")
		if said, err := child.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, said)
		}
		return
	}
	if err := Batch(); err != nil {
		t.Fatal(err)
	}
	var both sync.WaitGroup
	for range 8 { // goroutines that block in the kernel have a thread each
		both.Go(func() {
			pause := syscall.Timespec{Nsec: 20_000_000}
			_ = syscall.Nanosleep(&pause, nil)
		})
	}
	both.Wait()
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil || len(threads) < 2 {
		t.Fatal(len(threads), err)
	}
	for _, thread := range threads {
		number, _ := strconv.Atoi(thread.Name())
		policy, _, failed := syscall.Syscall(syscall.SYS_SCHED_GETSCHEDULER, uintptr(number), 0, 0)
		if failed == 0 && policy != schedBatch {
			t.Errorf("thread %d has policy %d", number, policy)
		}
	}
}
