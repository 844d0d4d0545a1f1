package main

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"sluicegate/go_infer/internal/pb/serving"
	"sluicegate/go_infer/internal/testmodels"
)

// launchGRPC starts a server and returns where its log says that gRPC is.
func launchGRPC(t *testing.T, arguments ...string) (stop func() string, addresses []string) {
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
		var line struct {
			Msg  string
			GRPC []string
		}
		if json.Unmarshal(log.Bytes(), &line) == nil && line.Msg == "ready" {
			return func() string {
				_ = c.Process.Signal(syscall.SIGTERM)
				said := rest(log)
				if err := c.Wait(); err != nil {
					t.Errorf("ended with %v, said\n%s", err, said)
				}
				return said
			}, line.GRPC
		}
	}
	t.Fatal("the server ended before it was ready")
	return nil, nil
}

func TestGRPCIsServedOnAFreePortAndOnASocketUntilItDrains(t *testing.T) {
	path := filepath.Join(t.TempDir(), "grpc.sock")
	stop, addresses := launchGRPC(t, "--port=0", "--grpc_socket_path="+path)
	if len(addresses) != 2 || addresses[1] != path {
		t.Fatalf("gRPC is served on %v", addresses)
	}
	for _, target := range []string{"passthrough:///" + addresses[0], "unix:" + path} {
		conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		answer := &serving.GetModelStatusResponse{}
		err = conn.Invoke(ctx, "/tensorflow.serving.ModelService/GetModelStatus",
			&serving.GetModelStatusRequest{ModelSpec: &serving.ModelSpec{Name: "digits"}}, answer)
		if err != nil || len(answer.ModelVersionStatus) != 2 {
			t.Errorf("%s: %v, %v", target, answer, err)
		}
		cancel()
		conn.Close()
	}
	if said := stop(); !strings.Contains(said, `"live_tensors":0,"live_slabs":0`) {
		t.Errorf("it said\n%s", said)
	}
}

func TestGRPCCanBeTurnedOff(t *testing.T) {
	stop, addresses := launchGRPC(t, "--port=-1")
	if len(addresses) != 0 {
		t.Errorf("gRPC is served on %v", addresses)
	}
	stop()
}

func TestAPortThatWasAskedForAndIsTakenIsAnError(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	base := filepath.Join(testmodels.Directory(t), "digits")
	said, err := command("--model_base_path="+base, "--rest_api_port=0", "--port="+port).CombinedOutput()
	if want := "port " + port + " on 127.0.0.1 is in use; stop what listens there or choose another with --port"; code(err) != 1 || !strings.Contains(string(said), want) {
		t.Errorf("ended with %v, said %s", err, said)
	}
}
