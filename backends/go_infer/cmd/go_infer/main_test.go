package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluicegate/go_infer/internal/testmodels"
)

// child makes this test binary behave as the command itself.
const child = "GO_INFER_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(child) != "" {
		os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

func command(arguments ...string) *exec.Cmd {
	c := exec.Command(os.Args[0], arguments...)
	c.Env = append(os.Environ(), child+"=1")
	return c
}

func code(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return 0
}

// launch starts a server and waits for a log line that holds text; it returns the address and the rest of the log.
func launch(t *testing.T, until string, arguments ...string) (*exec.Cmd, string, *bufio.Scanner) {
	t.Helper()
	base := filepath.Join(testmodels.Directory(t), "digits")
	c := command(append([]string{"--model_name=digits", "--model_base_path=" + base, "--rest_api_port=0"}, arguments...)...)
	pipe, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill() })
	log := bufio.NewScanner(pipe)
	for log.Scan() {
		var line struct{ Msg, Listen string }
		if json.Unmarshal(log.Bytes(), &line) == nil && line.Msg == until {
			return c, line.Listen, log
		}
	}
	t.Fatalf("the server ended without saying %q", until)
	return nil, "", nil
}

func rest(log *bufio.Scanner) string {
	var text strings.Builder
	for log.Scan() {
		text.WriteString(log.Text() + "\n")
	}
	return text.String()
}

func TestSigtermDrainsAndExitsWithZero(t *testing.T) {
	c, address, log := launch(t, "ready")
	response, err := http.Get("http://" + address + "/readyz")
	if err != nil || response.StatusCode != 200 {
		t.Fatal(response, err)
	}
	response.Body.Close()
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	said := rest(log)
	if err := c.Wait(); err != nil || !strings.Contains(said, `"live_tensors":0,"live_slabs":0`) {
		t.Errorf("ended with %v, said\n%s", err, said)
	}
}

func TestABodyThatTricklesInDoesNotKeepTheServerFromEndingWell(t *testing.T) {
	c, address, log := launch(t, "ready", "--drain_timeout=2s", "--drain_grace=100ms")
	client, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_ = client.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(client, "POST /v1/models/digits:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	go func() {
		for err := error(nil); err == nil; time.Sleep(20 * time.Millisecond) {
			_, err = io.WriteString(client, " ")
		}
	}()
	time.Sleep(50 * time.Millisecond) // for the server to have read the head; if it has not the result is the same
	_ = c.Process.Signal(syscall.SIGTERM)
	response, err := http.ReadResponse(bufio.NewReader(client), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(response.Body)
	if response.StatusCode != 503 || !response.Close || !strings.Contains(string(body), "the server stops, and the request had not arrived; send it again") {
		t.Errorf("%s, close: %v, %s", response.Status, response.Close, body)
	}
	said := rest(log)
	if err := c.Wait(); err != nil || !strings.Contains(said, `"msg":"requests were cut off","arriving":1,"answering":0,"timeout":"2s"`) {
		t.Errorf("ended with %v, said\n%s", err, said)
	}
}

// TestALoadThatDoesNotEndDoesNotKeepTheServerFromEnding: TensorFlow's Runs cannot be ended, and a model may loop for ever.
func TestALoadThatDoesNotEndDoesNotKeepTheServerFromEnding(t *testing.T) {
	c, _, log := launch(t, "config applied", "--model_base_path="+filepath.Join(testmodels.Probes(t), "endless"), "--drain_timeout=300ms", "--drain_grace=10ms",
		"--version_settle_time=0")
	const enough = 400 // hundredths of a second of the processor: nothing but that Run takes so much
	for used, end := 0, time.Now().Add(time.Minute); used < enough; time.Sleep(20 * time.Millisecond) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.Process.Pid))
		if errors.Is(err, fs.ErrNotExist) {
			t.Skip("there is no /proc to see what it uses")
		}
		_, after, _ := strings.Cut(string(text), ") ")
		fields := strings.Fields(after)
		if len(fields) < 12 || time.Now().After(end) {
			t.Fatalf("it has not begun: %s", text)
		}
		used, _ = strconv.Atoi(fields[11])
	}
	begun := time.Now()
	_ = c.Process.Signal(syscall.SIGTERM)
	said := rest(log)
	if err := c.Wait(); err != nil || !strings.Contains(said, "what was being loaded or unloaded could not be ended in time") {
		t.Errorf("ended with %v, said\n%s", err, said)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

// metric reads one value of the metrics page.
func metric(t *testing.T, address, name string) string {
	t.Helper()
	response, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	page, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(page), "\n"+name+" ")
	value, _, _ := strings.Cut(after, "\n")
	return value
}

// TestADrainThatCutsSomebodyOffSaysSoAndIsNoFailure: that a client was slow, or a model, is no reason for a supervisor to call the server failed.
func TestADrainThatCutsSomebodyOffSaysSoAndIsNoFailure(t *testing.T) {
	c, address, log := launch(t, "ready", "--drain_timeout=400ms", "--drain_grace=10ms", "--batch_timeout=10s")
	row := "[" + strings.Repeat("0,", 63) + "0]"
	asked := make(chan error, 1)
	go func() { // it waits for a full batch, far longer than the drain does
		response, err := http.Post("http://"+address+"/v1/models/digits:predict", "application/json", strings.NewReader(`{"instances":[`+row+`]}`))
		if err == nil {
			response.Body.Close()
		}
		asked <- err
	}()
	for end := time.Now().Add(10 * time.Second); metric(t, address, "go_infer_requests_in_flight") != "2"; time.Sleep(time.Millisecond) { // the look is one itself
		if time.Now().After(end) {
			t.Fatal("the request is not there")
		}
	}
	_ = c.Process.Signal(syscall.SIGTERM)
	if err := <-asked; err == nil {
		t.Error("the request was answered")
	}
	said := rest(log)
	if err := c.Wait(); err != nil || !strings.Contains(said, `"msg":"requests were cut off","arriving":0,"answering":1,"timeout":"400ms"`) ||
		!strings.Contains(said, `"msg":"stopped"`) {
		t.Errorf("ended with %v, said\n%s", err, said)
	}
}

func TestASecondSignalEndsAtOnce(t *testing.T) {
	c, _, log := launch(t, "ready", "--drain_grace=1h", "--drain_timeout=1h")
	_ = c.Process.Signal(syscall.SIGINT)
	for log.Scan() && !strings.Contains(log.Text(), "draining") {
	}
	ended := make(chan struct{})
	go func() { // those of the first second count as one
		for {
			select {
			case <-ended:
				return
			case <-time.After(50 * time.Millisecond):
				_ = c.Process.Signal(syscall.SIGINT)
			}
		}
	}()
	defer close(ended)
	said := rest(log)
	if err := c.Wait(); code(err) != 1 || !strings.Contains(said, "stopped at once by a second signal") {
		t.Errorf("ended with %v, said\n%s", err, said)
	}
}

func TestSignalsInOneBreathAreOne(t *testing.T) {
	c, _, log := launch(t, "ready", "--drain_grace=500ms")
	for range 5 {
		_ = c.Process.Signal(syscall.SIGTERM)
	}
	said := rest(log)
	if err := c.Wait(); err != nil || !strings.Contains(said, `"msg":"stopped"`) {
		t.Errorf("ended with %v, said\n%s", err, said)
	}
}

func TestItLeavesWithItsParentWhenAskedTo(t *testing.T) {
	base := filepath.Join(testmodels.Directory(t), "digits")
	// The shell is the parent: it starts the server, waits for nothing but a line, and is gone.
	shell := exec.Command("sh", "-c", `"$@" & read line; exit 0`, "sh", os.Args[0],
		"--exit_with_parent", "--model_name=digits", "--model_base_path="+base, "--rest_api_port=0")
	shell.Env = append(os.Environ(), child+"=1")
	input, err := shell.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := shell.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	log := bufio.NewScanner(output)
	for log.Scan() && !strings.Contains(log.Text(), `"ready"`) {
	}
	_, _ = io.WriteString(input, "\n")
	if said := rest(log); !strings.Contains(said, `"msg":"stopped"`) { // the pipe ends when the server does
		t.Errorf("said\n%s", said)
	}
	_ = shell.Wait()
}

func TestWrongUsageAndFailuresAreOneClearLine(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	empty := t.TempDir()
	mistaken := filepath.Join(t.TempDir(), "models.config")
	if err := os.WriteFile(mistaken, []byte("models {}"), 0o600); err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(t.TempDir(), "m")
	if err := os.MkdirAll(filepath.Join(broken, "1"), 0o750); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		arguments []string
		code      int
		says      string
	}{
		{nil, 2, "--model_base_path or --model_config_file is required"},
		{[]string{"--prot=1"}, 2, "there is no flag --prot; see go_infer --help"},
		{[]string{"--max_batch=0", "--model_base_path=x"}, 2, "--max_batch=0 is out of range; it must be 1..4096"},
		{[]string{"--load_pauses=-1", "--model_base_path=x"}, 2, "--load_pauses=-1 is out of range; it must be 0..100"},
		{[]string{"--load_pauses=101", "--model_base_path=x"}, 2, "--load_pauses=101 is out of range; it must be 0..100"},
		{[]string{"--warm_timeout=-1s", "--model_base_path=x"}, 2, "--warm_timeout, --load_patience and --lazy_load_timeout cannot be negative"},
		{[]string{"--load_patience=-1s", "--model_base_path=x"}, 2, "--load_patience and --lazy_load_timeout cannot be negative"},
		{[]string{"--image_workers=0", "--model_base_path=x"}, 2, "--image_workers=0 is out of range; it must be 1..256"},
		{[]string{"--heap_reserve=-1", "--model_base_path=x"}, 2, "--heap_reserve=-1 is out of range; it must be 0..1073741824"},
		{[]string{"--max_images=4097", "--model_base_path=x"}, 2, "--max_images=4097 is out of range; it must be 1..4096"},
		{[]string{"x", "--model_base_path=x"}, 2, `unexpected argument "x"`},
		{[]string{"--model_base_path=/nonexistent"}, 1, "model base path: open /nonexistent: no such file or directory"},
		{[]string{"--model_base_path=" + empty}, 1, "has no version directory"},
		{[]string{"--model_base_path=" + broken, "--rest_api_port=" + port}, 1, "port " + port + " on 127.0.0.1 is in use"},
		{[]string{"--model_base_path=" + broken, "--rest_api_port=0"}, 1, "no version of model default can be served; the last failure: " + broken},
		{[]string{"--model_config_file=" + mistaken, "--rest_api_port=0"}, 1, mistaken + ":1:1: the model config has no field"},
		{[]string{"--help"}, 0, "-model_base_path directory"},
		{[]string{"--version"}, 0, "(TensorFlow 2."},
	} {
		output, err := command(c.arguments...).CombinedOutput()
		if code(err) != c.code || !strings.Contains(string(output), c.says) {
			t.Errorf("%q: exit code %d, said\n%s\nwant %d, %s", c.arguments, code(err), output, c.code, c.says)
		}
		if strings.Contains(string(output), "the old one stays") {
			t.Errorf("%q: there is no old config at the start: %s", c.arguments, output)
		}
	}
}
