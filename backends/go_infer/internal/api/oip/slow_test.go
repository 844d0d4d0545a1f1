package oip_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"sluicegate/go_infer/internal/api"
	"sluicegate/go_infer/internal/api/oip"
	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/metrics"
	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/modelconfig"
	"sluicegate/go_infer/internal/repository"
	"sluicegate/go_infer/internal/savedmodel"
	"sluicegate/go_infer/internal/tensor"
	"sluicegate/go_infer/internal/testmodels"
)

// interrupted is a reader that does something when half of it was read.
type interrupted struct {
	io.Reader
	left int
	act  func()
}

func (r *interrupted) Read(memory []byte) (int, error) {
	n, err := r.Reader.Read(memory[:min(len(memory), 4096)])
	if r.left -= n; r.left <= 0 && r.act != nil {
		r.act()
		r.act = nil
	}
	return n, err
}

// An upload that does not end held the model, and with it the only place for a load, of all models, for as long as a body may take.
func TestASlowUploadKeepsNoModelFromBeingUnloaded(t *testing.T) {
	base := filepath.Join(testmodels.Directory(t), "digits")
	place := repository.Place{Number: 2, Directory: filepath.Join(base, "2")}
	print, err := savedmodel.Look(place.Directory)
	if err != nil {
		t.Fatal(err)
	}
	pool, registry := tensor.NewPool(), metrics.New()
	repo := repository.New(repository.Options{
		Lazy: true, LazyWait: 20 * time.Second, Budget: print.Bytes * 2, // one of 1.2
		Scan: func(context.Context, string) ([]repository.Place, error) { return []repository.Place{place}, nil },
		Load: func(name string, version int64, directory string) (*model.Model, error) {
			return model.Load(name, version, directory, model.Options{Limits: batch.Limits{MaxBatch: 32, MaxQueue: 1024, Slots: 1, Coalesce: true},
				IntraOp: 1, Pool: pool, Events: registry.Model(name, version)})
		}})
	defer pool.Drain()
	defer repo.Close()
	config := modelconfig.Config{Models: []modelconfig.Model{{Name: "a", BasePath: "a"}, {Name: "b", BasePath: "b"}}}
	if err := repo.Reload(context.Background(), config); err != nil {
		t.Fatal(err)
	}
	const rows = 400
	head := fmt.Sprintf(`{"inputs":[{"name":"image","datatype":"FP32","shape":[%d,64],"parameters":{"binary_data_size":%d}}]}`, rows, rows*256)
	whole := append([]byte(head), make([]byte, rows*256)...)
	met := false
	request := httptest.NewRequest("POST", "/v2/models/a/infer", &interrupted{bytes.NewReader(whole), len(whole) / 2, func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		lease, err := repo.Acquire(ctx, "b", repository.Wanted{})
		if err != nil {
			t.Errorf("another model while the body is on its way: %v", err)
			return
		}
		met = true
		lease.Release()
	}})
	request.ContentLength = int64(len(whole))
	request.Header.Set("Inference-Header-Content-Length", strconv.Itoa(len(head)))
	recorder := httptest.NewRecorder()
	handler := oip.Handler{Repository: repo, Limits: api.Limits{MaxBody: 1 << 20}, Release: "1.2.3", Ready: func() (bool, string) { return true, "" }}
	handler.Serve(recorder, request)
	if recorder.Code != 200 || !met {
		t.Errorf("%d %s", recorder.Code, recorder.Body)
	}
}
