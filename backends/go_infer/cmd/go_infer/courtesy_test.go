package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluicegate/go_infer/internal/testmodels"
)

// thread is one of a process: its scheduling policy (sched(7)) and the hundredths of a second that it has run.
type thread struct{ policy, used int }

// threads reads /proc/PID/task (proc(5)).
func threads(t *testing.T, pid int) (all []thread) {
	t.Helper()
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if len(files) == 0 {
		t.Skip("there is no /proc to see its threads")
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		_, after, _ := strings.Cut(string(text), ") ") // from the third field on
		fields := strings.Fields(after)
		used, _ := strconv.Atoi(fields[14-3])
		policy, _ := strconv.Atoi(fields[41-3])
		all = append(all, thread{policy, used})
	}
	return all
}

// A load whose Runs do not end shows how it runs: beside a model that is served as SCHED_IDLE, and else as anything.
func TestALoadGivesWayOnlyIfSomethingIsServed(t *testing.T) {
	const idle = 5
	endless := `config { name: "endless" base_path: "` + filepath.Join(testmodels.Probes(t), "endless") + `" }`
	t.Run("nothing is", func(t *testing.T) {
		c, _, _ := launch(t, "config applied", "--model_base_path="+filepath.Join(testmodels.Probes(t), "endless"), "--version_settle_time=0")
		const enough = 100 // no other thread takes so much
		for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
			for _, each := range threads(t, c.Process.Pid) {
				if each.policy == idle {
					t.Fatal("a thread gives way, though nothing is served")
				}
				if each.used > enough {
					return
				}
			}
			if time.Now().After(end) {
				t.Fatal("the load has not begun")
			}
		}
	})
	t.Run("a model is", func(t *testing.T) {
		digits := `config { name: "d" base_path: "` + filepath.Join(testmodels.Directory(t), "digits") + `" }`
		s := operate(t, "model_config_list { "+digits+" }", "--version_settle_time=0")
		if err := os.WriteFile(s.config, []byte("model_config_list { "+digits+endless+" }"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
			for _, each := range threads(t, s.Process.Pid) {
				if each.policy == idle {
					return
				}
			}
			if time.Now().After(end) {
				t.Fatal("no thread gives way")
			}
		}
	})
}
