package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluicegate/go_infer/internal/testmodels"
)

// operated is a server of the model d, started from a config file.
type operated struct {
	*exec.Cmd
	t                       *testing.T
	config, public, control string
	log                     *bufio.Scanner
}

func operate(t *testing.T, config string, arguments ...string) *operated {
	t.Helper()
	file := filepath.Join(t.TempDir(), "models.config")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	c := command(append([]string{"--model_config_file=" + file, "--rest_api_port=0", "--control_port=0"}, arguments...)...)
	pipe, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	s := &operated{Cmd: c, t: t, config: file, log: bufio.NewScanner(pipe)}
	for s.log.Scan() {
		var line struct{ Msg, Flag, Listen string }
		_ = json.Unmarshal(s.log.Bytes(), &line)
		switch {
		case line.Flag == "control_port":
			s.control = "http://" + line.Listen
		case line.Msg == "ready":
			s.public = "http://" + line.Listen
			return s
		}
	}
	t.Fatal("the server ended without being ready")
	return nil
}

func (s *operated) ask(method, url, body string) (int, string) {
	s.t.Helper()
	request, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return response.StatusCode, string(content)
}

// says reads the log until a line holds text.
func (s *operated) says(text string) {
	s.t.Helper()
	for s.log.Scan() {
		if strings.Contains(s.log.Text(), text) {
			return
		}
	}
	s.t.Fatalf("the server ended without saying %q", text)
}

func (s *operated) version(label string) string {
	s.t.Helper()
	_, body := s.ask("GET", s.public+"/v1/models/d"+label+"/metadata", "")
	_, after, _ := strings.Cut(body, `"version": "`)
	version, _, _ := strings.Cut(after, `"`)
	return version
}

func TestAConfigFileIsFollowedAndABadOneChangesNothing(t *testing.T) {
	base := filepath.Join(testmodels.Directory(t), "digits")
	config := func(policy, more string) string {
		return `model_config_list { config { name: "d" base_path: "` + base + `" model_version_policy { ` + policy + ` } ` + more + ` } }`
	}
	s := operate(t, config("specific { versions: 1 }", `version_labels { key: "stable" value: 1 }`))
	if s.version("") != "1" || s.version("/labels/stable") != "1" {
		t.Fatalf("versions %q and %q", s.version(""), s.version("/labels/stable"))
	}
	change := func(text, until string) {
		t.Helper()
		if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		s.says(until)
	}
	change(config("sometimes {}", ""), `model_version_policy has no field \"sometimes\"`)
	change(config("all {}", `version_labels { key: "stable" value: 2 }`), "Request to assign label to version 2 of model d, which is not currently available")
	if _, page := s.ask("GET", s.public+"/metrics", ""); !strings.Contains(page, "go_infer_config_good 0") {
		t.Error("the metrics do not say that the config was refused")
	}
	if s.version("") != "1" || s.version("/labels/stable") != "1" {
		t.Errorf("a refused config is in effect: %q", s.version(""))
	}
	change(config("all {}", `version_labels { key: "stable" value: 1 }`), `"msg":"model loaded","model":"d","version":2`)
	if s.version("") != "2" || s.version("/labels/stable") != "1" {
		t.Errorf("versions %q and %q", s.version(""), s.version("/labels/stable"))
	}
	for _, step := range []struct {
		path, body, says string
		code             int
	}{
		{"/models/d/labels/stable?version=2", "", "done", 200},
		{"/models/d/labels/stable?version=3", "", "not currently available", 400},
		{"/models/d/labels/stable", "", "is not a version", 400},
		{"/models/d/rollback", "", `{"from":2,"to":1}`, 200},
		{"/models/d/rollback", "", "no version below 1", 400},
		{"/models/x/rollback", "", "Could not find any versions of model x", 404},
		{"/traffic", `traffic { model: "x" }`, `there is no model \"x\"`, 404},
		{"/traffic", `traffic {`, "body:1:10: traffic, opened at 1:1, is not closed", 400},
		{"/traffic", `traffic { model: "d" split { version: 1 weight: 1 } }`, "done", 200},
	} {
		if code, body := s.ask("POST", s.control+step.path, step.body); code != step.code || !strings.Contains(body, step.says) {
			t.Errorf("%s: %d %s\nwant %d %s", step.path, code, body, step.code, step.says)
		}
	}
	if s.version("") != "1" || s.version("/labels/stable") != "1" {
		t.Errorf("after the rollback: versions %q and %q", s.version(""), s.version("/labels/stable"))
	}
	_, page := s.ask("GET", s.public+"/monitoring/prometheus/metrics", "")
	if !strings.Contains(page, `:tensorflow:cc:saved_model:load_attempt_count{model_path="d/2",status="success"} 1`) {
		t.Errorf("no load under TF-Serving's name in\n%s", page)
	}
}

func TestProfilesAreOnAPrivateListenerOnly(t *testing.T) {
	c, address, _ := launch(t, "ready")
	response, err := http.Get("http://" + address + "/debug/pprof/")
	if err != nil || response.StatusCode != 404 {
		t.Errorf("%v %v", response, err)
	}
	_ = c.Process.Kill()
	_, private, _ := launch(t, "private listener", "--debug_port=0")
	if response, err = http.Get("http://" + private + "/debug/pprof/"); err != nil || response.StatusCode != 200 {
		t.Errorf("%v %v", response, err)
	}
}

func TestASocketInTheFileSystemAnswersToo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	stale, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	stale.Close() // its file is left, as after a crash
	c, _, log := launch(t, "ready", "--rest_api_socket_path="+path)
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		},
	}}
	response, err := client.Get("http://socket/v1/models/digits")
	if err != nil || response.StatusCode != 200 {
		t.Fatal(response, err)
	}
	response.Body.Close()
	output, err := command("--model_name=digits", "--model_base_path=x", "--rest_api_port=0", "--rest_api_socket_path="+path).CombinedOutput()
	if code(err) != 1 || !strings.Contains(string(output), "socket "+path+" is in use") {
		t.Errorf("a second server said %s", output)
	}
	_ = c.Process.Signal(syscall.SIGTERM)
	if said := rest(log); !strings.Contains(said, `"live_tensors":0,"live_slabs":0`) {
		t.Errorf("said\n%s", said)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
}

func TestATracedRequestLeavesASpan(t *testing.T) {
	file := filepath.Join(t.TempDir(), "spans")
	c, address, log := launch(t, "ready", "--trace_file="+file)
	request, _ := http.NewRequest("GET", "http://"+address+"/v1/models/digits", nil)
	request.Header.Set("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	_ = c.Process.Signal(syscall.SIGTERM)
	rest(log)
	content, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(content), `"parent_id":"00f067aa0ba902b7"`) || strings.Count(string(content), "\n") != 1 {
		t.Errorf("%s, %v", content, err)
	}
}
