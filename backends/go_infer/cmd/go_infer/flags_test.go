package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// documented are the flags that the README's table names, by the cells of its first column.
func documented(t *testing.T) (names []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(text), "\n## Flags\n")
	if !found {
		t.Fatal("the README has no part on flags")
	}
	table, _, _ = strings.Cut(table, "\n## ")
	flag := regexp.MustCompile("`--([a-z_]+)`")
	for line := range strings.Lines(table) {
		if cells := strings.Split(line, "|"); len(cells) > 2 {
			for _, match := range flag.FindAllStringSubmatch(cells[1], -1) {
				names = append(names, match[1])
			}
		}
	}
	return names
}

func TestTheReadmeAndTheHelpNameTheSameFlags(t *testing.T) {
	var help bytes.Buffer
	_, _ = parseFlags([]string{"--help"}, &help)
	names := []string{"help"}
	for _, match := range regexp.MustCompile(`(?m)^  -([a-z_]+)`).FindAllStringSubmatch(help.String(), -1) {
		names = append(names, match[1])
	}
	told := documented(t)
	for _, name := range names {
		if n := len(slices.DeleteFunc(slices.Clone(told), func(each string) bool { return each != name })); n != 1 {
			t.Errorf("the README's table has --%s %d times, want once", name, n)
		}
	}
	for _, name := range told {
		if !slices.Contains(names, name) {
			t.Errorf("the README's table has --%s, which --help does not know", name)
		}
	}
}

func TestNewFlagsAreBoundOnBothSides(t *testing.T) {
	for argument, says := range map[string]string{
		"--remote_cache_bytes=-1":     "--remote_cache_bytes=-1 is out of range",
		"--remote_max_bytes=1":        "--remote_max_bytes=1 is out of range",
		"--remote_downloads=0":        "--remote_downloads=0 is out of range; it must be 1..64",
		"--remote_parallel=65":        "--remote_parallel=65 is out of range; it must be 1..64",
		"--remote_attempts=101":       "--remote_attempts=101 is out of range; it must be 1..100",
		"--remote_poll_wait=-1s":      "--remote_poll_wait=-1s is out of range",
		"--remote_timeout=1ms":        "--remote_timeout=1ms is out of range",
		"--remote_stall_timeout=1ms":  "--remote_stall_timeout=1ms is out of range",
		"--remote_backoff=6s":         "--remote_backoff=6s is out of range",
		"--otlp_queue=0":              "--otlp_queue=0 is out of range",
		"--otlp_batch=1048577":        "--otlp_batch=1048577 is out of range",
		"--otlp_interval=0s":          "--otlp_interval=0s is out of range",
		"--otlp_timeout=2h":           "--otlp_timeout=2h0m0s is out of range",
		"--http_max_header=1023":      "--http_max_header=1023 is out of range; it must be 1024..1048576",
		"--http_max_fields=1001":      "--http_max_fields=1001 is out of range; it must be 8..1000",
		"--http_header_timeout=99ms":  "--http_header_timeout=99ms is out of range; it must be 100ms..24h",
		"--http_body_timeout=0":       "--http_body_timeout=0s is out of range",
		"--http_write_timeout=-1s":    "--http_write_timeout=-1s is out of range",
		"--http_idle_timeout=25h":     "--http_idle_timeout=25h0m0s is out of range",
		"--http_max_header=1024":      "",
		"--http_max_fields=1000":      "",
		"--http_header_timeout=0.1s":  "",
		"--http_idle_timeout=24h":     "",
		"--remote_downloads=64":       "",
		"--remote_attempts=1":         "",
		"--otlp_timeout=1h":           "",
		"--remote_cache_bytes=0":      "",
		"--remote_stall_timeout=0.1s": "",
	} {
		_, err := parseFlags([]string{"--model_base_path=/models", argument}, &bytes.Buffer{})
		if says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("%s: %v", argument, err)
		}
	}
}
