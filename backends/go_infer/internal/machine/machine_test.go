package machine

import (
	"strings"
	"testing"
	"testing/fstest"
)

func TestTheSmallestQuotaOfTheGroupsCounts(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  float64
	}{
		"no cgroups":           {nil, 0},
		"version 2, unlimited": {map[string]string{"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "max 100000\n"}, 0},
		"version 2":            {map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "250000 100000\n"}, 2.5},
		"its parent is tighter": {map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "250000 100000\n",
			"sys/fs/cgroup/a/cpu.max": "50000 100000\n"}, .5},
		"a container's root": {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5},
		"version 1": {map[string]string{"proc/self/cgroup": "4:cpu,cpuacct:/x\n1:name=systemd:/x\n",
			"sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "300000\n", "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n"}, 3},
		"version 1, unlimited": {map[string]string{"proc/self/cgroup": "4:cpu:/x\n",
			"sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n"}, 0},
		"nonsense": {map[string]string{"proc/self/cgroup": "0::/\nx\n", "sys/fs/cgroup/cpu.max": "one two three\n"}, 0},
	} {
		root := fstest.MapFS{}
		for file, content := range c.files {
			root[file] = &fstest.MapFile{Data: []byte(content)}
		}
		if got := Quota(root); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestTheChoiceFollowsTheQuotaAndSaysWhy(t *testing.T) {
	for _, c := range []struct {
		cpus        int
		quota       float64
		procs, runs int
		says        string
	}{
		{1, 0, 1, 1, "1 CPUs, no cgroup quota"},
		{2, 0, 2, 1, "1 of 2 cores run TensorFlow"},
		{64, 0, 64, 32, "32 of 64"},
		{64, 3.5, 4, 2, "cgroup quota of 3.50: as if there were 4"},
		{64, .2, 1, 1, "as if there were 1"},
		{2, 8, 2, 1, "cgroup quota of 8.00: as if there were 2"},
	} {
		got := Choose(c.cpus, c.quota)
		if got.Procs != c.procs || got.Runs != c.runs || !strings.Contains(got.Reason, c.says) {
			t.Errorf("%d CPUs, quota %v: %+v", c.cpus, c.quota, got)
		}
	}
}
