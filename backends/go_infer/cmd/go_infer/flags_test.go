package main

import (
	"bytes"
	"cmp"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
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

// said are the defaults that the README gives in words, by what the help says: what depends on the machine, it does not.
var said = map[string][]string{
	"none": {"", "-1"}, "equal": {""}, "as REST": {""}, "": {"", "false", "0"}, "powers of two": {""}, "X-Priority": {"X-Priority"}, "default": {"default"},
	"the user's cache directory": nil, "half the cores": nil, "half the cores (of the cgroup's quota)": nil, "what OTEL_EXPORTER_OTLP_* say": {""},
	"60 s": {"60000000", "6e+07"}, // of a flag in microseconds
}

// amount is a default as a number: of bytes, of nanoseconds, or as such.
func amount(text string) (float64, bool) {
	if long, err := time.ParseDuration(text); err == nil {
		return float64(long), true
	}
	number, unit, _ := strings.Cut(text, " ")
	factor := map[string]float64{"": 1, "Mi": 1 << 20, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[unit]
	value, err := strconv.ParseFloat(number, 64)
	return value * factor, err == nil && factor > 0
}

func TestTheReadmesDefaultsAreTheHelps(t *testing.T) {
	var help bytes.Buffer
	_, _ = parseFlags([]string{"--help"}, &help)
	defaults := map[string]string{}
	for _, entry := range regexp.MustCompile(`(?m)^  -`).Split(help.String(), -1)[1:] {
		name := regexp.MustCompile(`^[a-z_]+`).FindString(entry)
		value := ""
		if match := regexp.MustCompile(`\(default "?([^")]*)"?\)\s*$`).FindStringSubmatch(entry); match != nil {
			value = match[1]
		}
		defaults[name] = value
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "\n## Flags\n")
	table, _, _ = strings.Cut(table, "\n## ")
	compared := 0
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 || !strings.Contains(cells[1], "`--") {
			continue
		}
		flags := regexp.MustCompile("`--([a-z_]+)`").FindAllStringSubmatch(cells[1], -1)
		values := strings.Split(strings.TrimSpace(strings.ReplaceAll(cells[2], "`", "")), ",")
		for i, match := range flags {
			name, told := match[1], values[0] // one for all of them
			if len(values) == len(flags) {
				told = strings.TrimSpace(values[i])
			} else if len(values) > 1 {
				t.Errorf("--%s: the README has %d defaults for %d flags", name, len(values), len(flags))
				continue
			}
			compared++
			if words, inWords := said[told]; inWords {
				if words != nil && !slices.Contains(words, defaults[name]) {
					t.Errorf("--%s: the README says %q, the help %q", name, told, defaults[name])
				}
				continue
			}
			ours, number := amount(told)
			theirs, also := amount(cmp.Or(defaults[name], "0"))
			if told != cmp.Or(defaults[name], "false") && !(number && also && ours == theirs) {
				t.Errorf("--%s: the README says %q, the help %q", name, told, defaults[name])
			}
		}
	}
	if compared < 80 {
		t.Errorf("only %d defaults were compared", compared)
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
		"--lazy_min_stay=4":           "neither a multiple",
		"--lazy_min_stay=1001x":       "it must be 0x..1000x",
		"--lazy_min_stay=1000x":       "",
		"--lazy_min_stay=0":           "",
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

func TestAMistakeInAFlagIsToldWithWhatToWriteInstead(t *testing.T) {
	for argument, says := range map[string]string{
		"--rest_api_timeout_in_ms=30000":     "there is no flag --rest_api_timeout_in_ms as in TensorFlow Serving: see --http_write_timeout (30000 is 30s); a client may send X-Request-Timeout: 250ms",
		"--tensorflow_session_parallelism=4": "there is no flag --tensorflow_session_parallelism as in TensorFlow Serving: see --batch_workers and --tensorflow_intra_op_parallelism",
		"--max_batchh=3":                     "there is no flag --max_batchh; see go_infer --help",
		"--batch_timeout=5":                  `--batch_timeout: invalid value "5": it must be a time with its unit, as in 250ms or 5s`,
		"--port=a for -b":                    `--port: invalid value "a for -b": it must be a whole number`,
		"--load_pauses=x":                    `--load_pauses: invalid value "x": it must be a number`,
		"--enable_batching=maybe":            `--enable_batching: invalid boolean value "maybe": it must be true or false`,
		"--model_name=":                      "--model_name cannot be empty: nobody could ask for the model",
		"--port=8501":                        "--rest_api_port and --port are both 8501; HTTP and gRPC listen on ports of their own",
		"--port=99999999999999999999":        `invalid value "99999999999999999999" for flag -port: value out of range; see go_infer --help`,
	} {
		_, err := parseFlags([]string{"--model_base_path=/models", argument}, &bytes.Buffer{})
		if err == nil || err.Error() != says {
			t.Errorf("%s: %v", argument, err)
		}
	}
}

func TestWhatIsToldInsteadOfTensorFlowServingsFlagsIsThere(t *testing.T) {
	told := documented(t)
	for name, instead := range elsewhere {
		if slices.Contains(told, name) {
			t.Errorf("--%s is here", name)
		}
		for _, match := range regexp.MustCompile(`--([a-z_]+)`).FindAllStringSubmatch(instead, -1) {
			if !slices.Contains(told, match[1]) {
				t.Errorf("--%s: there is no --%s", name, match[1])
			}
		}
	}
}
