package repository

import (
	"runtime"
	"syscall"

	"sluicegate/go_infer/internal/model"
)

type loadedModel = model.Model

// aside runs load on an operating-system thread of its own that gives way to all others by nice. Threads that TensorFlow starts in
// there inherit it (on Linux, niceness belongs to a thread and is inherited from the one that made it), so restoring variables
// gives way, too. The thread ends with the load: nobody may raise its priority again.
func aside(nice int, load func() (*model.Model, error)) (*model.Model, error) {
	if nice <= 0 {
		return load()
	}
	type result struct {
		model *model.Model
		err   error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		_ = syscall.Setpriority(syscall.PRIO_PROCESS, syscall.Gettid(), nice)
		loaded, err := load()
		done <- result{loaded, err}
	}()
	got := <-done
	return got.model, got.err
}
