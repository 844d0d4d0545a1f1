// Package machine reads what the process may use of the machine, and chooses numbers of threads by it.
//
// Sources: cgroup v2's cpu.max (Linux, Documentation/admin-guide/cgroup-v2.rst), cgroup v1's cpu.cfs_quota_us and cpu.cfs_period_us.
package machine

import (
	"fmt"
	"io/fs"
	"math"
	"path"
	"runtime"
	"strconv"
	"strings"
)

// Choice is how many threads do what, and why.
type Choice struct {
	Procs   int // cores that may be used at the same time
	Runs    int // TensorFlow Runs at the same time
	IntraOp int // threads inside one operation
	Reason  string
}

// Spare is by how much GOMAXPROCS is more than Procs. A thread in TensorFlow keeps its place among them if another is free; if not, Go's
// monitor takes it away 20 us later, and for that wakes up every 20 us: 2 us of CPU for a request of a small model over the link (docs/adr/0042).
const Spare = 1

// Choose decides for this many CPUs, of which the cgroup allows quota (0: all of them).
//
// TensorFlow's operations run in the thread that called Run, so what limits a Run is one core. On small models reading and writing JSON
// costs as much as the Run, so half of the cores are left for that; more Runs at a time than cores would only make each slower.
func Choose(cpus int, quota float64) Choice {
	c := Choice{Procs: cpus, IntraOp: 1, Reason: fmt.Sprintf("%d CPUs, no cgroup quota", cpus)}
	if quota > 0 {
		c.Procs = max(1, min(cpus, int(math.Ceil(quota))))
		c.Reason = fmt.Sprintf("%d CPUs, cgroup quota of %.2f: as if there were %d, so that no thread is stopped in the middle of a period", cpus, quota, c.Procs)
	}
	c.Runs = max(1, c.Procs/2)
	c.Reason += fmt.Sprintf("; %d of %d cores run TensorFlow, the others speak HTTP; an operation uses one thread, for a hand-over costs "+
		"more than a small operation", c.Runs, c.Procs)
	return c
}

// CPUs is the number that the process may be scheduled on.
func CPUs() int { return runtime.NumCPU() }

// Quota is the CPUs' worth of time that the process's cgroups allow, the smallest of them; 0 if none limits it. root is the file system
// (os.DirFS("/")).
func Quota(root fs.FS) float64 {
	membership, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return 0
	}
	least := 0.0
	for _, line := range strings.Split(string(membership), "\n") {
		parts := strings.SplitN(line, ":", 3)
		if len(parts) != 3 {
			continue
		}
		mount, read := "sys/fs/cgroup", quota2
		if parts[1] != "" { // version 1
			if !strings.Contains(","+parts[1]+",", ",cpu,") {
				continue
			}
			mount, read = "sys/fs/cgroup/cpu", quota1
		}
		// Inside a container the group is mounted as the root, whatever its path is outside: so the root is asked too.
		for group := path.Clean("/" + parts[2]); ; group = path.Dir(group) {
			if quota := read(root, path.Join(mount, group)); quota > 0 && (least == 0 || quota < least) {
				least = quota
			}
			if group == "/" {
				break
			}
		}
	}
	return least
}

func quota2(root fs.FS, group string) float64 {
	content, err := fs.ReadFile(root, path.Join(group, "cpu.max"))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(content))
	if len(fields) != 2 {
		return 0
	}
	return ratio(fields[0], fields[1])
}

func quota1(root fs.FS, group string) float64 {
	quota, err := fs.ReadFile(root, path.Join(group, "cpu.cfs_quota_us"))
	if err != nil {
		return 0
	}
	period, err := fs.ReadFile(root, path.Join(group, "cpu.cfs_period_us"))
	if err != nil {
		return 0
	}
	return ratio(strings.TrimSpace(string(quota)), strings.TrimSpace(string(period)))
}

// ratio is quota over period; 0 for "max", -1 and nonsense.
func ratio(quota, period string) float64 {
	q, err := strconv.ParseFloat(quota, 64)
	p, wrong := strconv.ParseFloat(period, 64)
	if err != nil || wrong != nil || q <= 0 || p <= 0 {
		return 0
	}
	return q / p
}
