package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"sluicegate/go_infer/internal/pb/inference"
	"sluicegate/go_infer/internal/pb/serving"
	"sluicegate/go_infer/internal/pb/tensorflow"
	"sluicegate/go_infer/internal/testmodels"
)

// launchGRPC starts a server and returns where its log says that gRPC is.
func launchGRPC(t testing.TB, arguments ...string) (process *exec.Cmd, stop func() string, listen string, addresses []string) {
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
			Msg, Listen string
			GRPC        []string
		}
		if json.Unmarshal(log.Bytes(), &line) == nil && line.Msg == "ready" {
			return c, func() string {
				_ = c.Process.Signal(syscall.SIGTERM)
				said := rest(log)
				if err := c.Wait(); err != nil {
					t.Errorf("ended with %v, said\n%s", err, said)
				}
				return said
			}, line.Listen, line.GRPC
		}
	}
	t.Fatal("the server ended before it was ready")
	return nil, nil, "", nil
}

func TestGRPCIsServedOnAFreePortAndOnASocketUntilItDrains(t *testing.T) {
	path := filepath.Join(t.TempDir(), "grpc.sock")
	_, stop, _, addresses := launchGRPC(t, "--port=0", "--grpc_socket_path="+path)
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
		if err != nil || len(answer.ModelVersionStatus) == 0 {
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
	_, stop, _, addresses := launchGRPC(t, "--port=-1")
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

// BenchmarkGRPC is what a digit costs the server process: cpu-us/op altogether, run-us/op of it in Runs (gathering and scattering
// rows among it). 32 callers ask on one connection.
func BenchmarkGRPC(b *testing.B) {
	content := make([]byte, 256)
	for name, call := range map[string]struct {
		method string
		in     proto.Message
		out    func() proto.Message
	}{
		"Predict": {"/tensorflow.serving.PredictionService/Predict", &serving.PredictRequest{
			ModelSpec: &serving.ModelSpec{Name: "digits"}, Inputs: map[string]*tensorflow.TensorProto{"image": {
				Dtype: tensorflow.DataType_DT_FLOAT, TensorContent: content,
				TensorShape: &tensorflow.TensorShapeProto{Dim: []*tensorflow.TensorShapeProto_Dim{{Size: 1}, {Size: 64}}}}}},
			func() proto.Message { return &serving.PredictResponse{} }},
		"ModelInfer": {"/inference.GRPCInferenceService/ModelInfer", &inference.ModelInferRequest{ModelName: "digits",
			Inputs:           []*inference.ModelInferRequest_InferInputTensor{{Name: "image", Datatype: "FP32", Shape: []int64{1, 64}}},
			RawInputContents: [][]byte{content}},
			func() proto.Message { return &inference.ModelInferResponse{} }},
		"ServerLive": {"/inference.GRPCInferenceService/ServerLive", &inference.ServerLiveRequest{},
			func() proto.Message { return &inference.ServerLiveResponse{} }},
	} {
		b.Run(name, func(b *testing.B) {
			server, stop, listen, addresses := launchGRPC(b, "--port=0")
			conn, err := grpc.NewClient("passthrough:///"+addresses[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				b.Fatal(err)
			}
			ask := func(count int) {
				var left atomic.Int64
				left.Store(int64(count))
				var callers sync.WaitGroup
				for range 32 {
					callers.Add(1)
					go func() {
						defer callers.Done()
						for left.Add(-1) >= 0 {
							if err := conn.Invoke(context.Background(), call.method, call.in, call.out()); err != nil {
								b.Error(err)
								return
							}
						}
					}()
				}
				callers.Wait()
			}
			ask(1000)
			cpu, run := ticks(b, server.Process.Pid), inRuns(b, listen)
			b.ResetTimer()
			ask(b.N)
			b.StopTimer()
			b.ReportMetric((ticks(b, server.Process.Pid)-cpu)*1e6/float64(b.N), "cpu-us/op")
			b.ReportMetric((inRuns(b, listen)-run)*1e6/float64(b.N), "run-us/op")
			conn.Close()
			stop()
		})
	}
}

// ticks is the CPU time of a process, in seconds.
func ticks(b *testing.B, pid int) float64 {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')'):])) // utime and stime are fields 14 and 15
	user, _ := strconv.ParseFloat(fields[12], 64)
	system, _ := strconv.ParseFloat(fields[13], 64)
	return (user + system) / 100
}

// inRuns is the time that the server spent in Runs, in seconds.
func inRuns(b *testing.B, listen string) (sum float64) {
	response, err := http.Get("http://" + listen + "/metrics")
	if err != nil {
		b.Fatal(err)
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "go_infer_run_duration_seconds_sum") {
			value, _ := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, ' '):]), 64)
			sum += value
		}
	}
	return sum
}
