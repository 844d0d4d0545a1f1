package session_test

import (
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"sluicegate/go_infer/internal/session"
	"sluicegate/go_infer/internal/testmodels"
)

// pausedBy is how much longer loads have paused after so much work.
func pausedBy(worked time.Duration) time.Duration {
	before := session.Paused()
	session.PauseAfter(worked)
	return session.Paused() - before
}

func TestALoadPausesOnlyWhileRequestsAreServedAndNobodyHurries(t *testing.T) {
	session.SetPauses(3)
	defer session.SetPauses(0)
	for end := time.Now().Add(10 * time.Second); pausedBy(time.Millisecond) != 0; { // tests before this one made Runs
		if time.Now().After(end) {
			t.Fatal("loads pause though no Run was made for 10 s")
		}
	}
	call, _, _ := prepared(t)
	run := func() {
		if err := call.Run(); err != nil {
			t.Fatal(err)
		}
		call.Release()
	}
	for _, c := range []struct {
		name     string
		times    float64
		hurried  bool
		aside    bool
		worked   time.Duration
		expected time.Duration
	}{
		{"for warming, nobody waits", 3, false, true, time.Millisecond, 0},
		{"three times what it worked", 3, false, false, time.Millisecond, 3 * time.Millisecond},
		{"half of what it worked", 0.5, false, false, time.Millisecond, 500 * time.Microsecond},
		{"never long", 3, false, false, time.Minute, 5 * time.Millisecond},
		{"not with pauses off", 0, false, false, time.Millisecond, 0},
		{"not in a hurry", 3, true, false, time.Millisecond, 0},
		{"again after a hurry", 3, false, false, time.Millisecond, 3 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			session.SetPauses(c.times)
			if c.aside {
				if err := call.RunAside(1); err != nil {
					t.Fatal(err)
				}
				call.Release()
			} else {
				run()
			}
			if c.hurried {
				done, _ := session.Hurry(19)
				defer done()
			}
			if got := pausedBy(c.worked); got != c.expected {
				t.Errorf("paused %v after %v, want %v", got, c.worked, c.expected)
			}
		})
	}
}

func TestAVariableIsReadInPiecesAndItsChecksumHolds(t *testing.T) {
	before := session.Pieces()
	s, _, err := session.Load(filepath.Join(testmodels.Directory(t), "digits/2"), 1, 0) // its largest variable has 128 KiB
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if session.Pieces() == before {
		t.Error("TensorFlow's reads do not come by: they are not cut into pieces")
	}
}

func TestAHurryRaisesThreadsThatLoadAsFarAsTheSystemAllows(t *testing.T) {
	const nice = 18 // of no other thread here
	priority := func(thread int) int {
		got, err := syscall.Getpriority(syscall.PRIO_PROCESS, thread)
		if err != nil {
			t.Fatal(err)
		}
		return 20 - got
	}
	thread, over := make(chan int), make(chan struct{})
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := syscall.Setpriority(syscall.PRIO_PROCESS, syscall.Gettid(), nice); err != nil {
			t.Error(err)
		}
		thread <- syscall.Gettid()
		<-over
	}()
	loading := <-thread
	defer close(over)
	own := priority(syscall.Getpid())
	done, raised := session.Hurry(nice)
	defer done()
	if want := map[bool]int{true: own, false: nice}[raised]; priority(loading) != want {
		t.Errorf("raised: %v, but the thread has niceness %d, want %d", raised, priority(loading), want)
	}
	if priority(syscall.Getpid()) != own {
		t.Error("another thread was changed")
	}
}

func TestAHurryRaisesIdleThreadsToo(t *testing.T) {
	const idle = 5 // SCHED_IDLE of sched(7)
	policy := func(thread int) uintptr {
		got, _, failure := syscall.Syscall(syscall.SYS_SCHED_GETSCHEDULER, uintptr(thread), 0, 0)
		if failure != 0 {
			t.Fatal(failure)
		}
		return got
	}
	thread, over := make(chan int), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		var none int32
		_, _, failure := syscall.Syscall(syscall.SYS_SCHED_SETSCHEDULER, 0, idle, uintptr(unsafe.Pointer(&none)))
		if failure != 0 {
			t.Error(failure)
		}
		thread <- syscall.Gettid()
		<-over
	}()
	loading := <-thread
	defer close(over)
	if policy(loading) != idle {
		t.Fatal("the thread is not idle to begin with")
	}
	done, raised := session.Hurry(20)
	defer done()
	if raised != (policy(loading) != idle) {
		t.Errorf("raised: %v, but its policy is %d", raised, policy(loading))
	}
}
