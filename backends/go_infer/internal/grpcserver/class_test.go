package grpcserver

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	grpcmetadata "google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/pb/serving"
	"sluicegate/go_infer/internal/repository"
)

// TestExamplesAreAsUrgentAsTheirCallSays: what waits as batch makes room for what is critical, whatever method it came by.
func TestExamplesAreAsUrgentAsTheirCallSays(t *testing.T) {
	r := start(t, probes(t), batch.Limits{MaxBatch: 128, MaxQueue: 1, Slots: 1, Coalesce: true, Delay: time.Hour}, func(_ *Options, p *Parts) {
		p.Around.Priority, p.Around.TrustPriority = "X-Priority", true
	})
	_, input := flowers(t)
	input.GetExampleList().Examples = input.GetExampleList().Examples[:1]
	lease, err := r.repo.Acquire(soon(t), "iris", repository.Wanted{})
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Release()
	task := func(signature, method string) *serving.InferenceTask {
		return &serving.InferenceTask{ModelSpec: spec("iris", signature), MethodName: "tensorflow/serving/" + method}
	}
	for method, call := range map[string]struct{ in, out proto.Message }{
		classify: {&serving.ClassificationRequest{ModelSpec: spec("iris", "classify"), Input: input}, &serving.ClassificationResponse{}},
		regress:  {&serving.RegressionRequest{ModelSpec: spec("iris", "regress"), Input: input}, &serving.RegressionResponse{}},
		multi: {&serving.MultiInferenceRequest{Input: input, Tasks: []*serving.InferenceTask{task("classify", "classify")}},
			&serving.MultiInferenceResponse{}},
	} {
		begin := func(class string) (ended chan error, end func()) {
			ctx, cancel := context.WithTimeout(grpcmetadata.AppendToOutgoingContext(context.Background(), "x-priority", class), 20*time.Second)
			ended = make(chan error, 1)
			go func() { ended <- r.conn.Invoke(ctx, method, call.in, proto.Clone(call.out)) }()
			return ended, cancel
		}
		first, leave := begin("batch")
		eventually(t, method+" waits", func() bool { return lease.Model.Waiting() == 1 })
		second, end := begin("critical")
		if err := <-first; grpcstatus.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "made room for one of a higher priority") {
			t.Errorf("%s of class batch ended with %v", method, err)
		}
		end()
		<-second
		leave()
		eventually(t, "nothing waits", func() bool { return lease.Model.Waiting() == 0 })
	}
}
