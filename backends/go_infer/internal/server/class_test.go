package server_test

import (
	"context"
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/testmodels"
)

// TestExamplesAreAsUrgentAsTheirRequestSays: what waits as batch makes room for what is critical.
func TestExamplesAreAsUrgentAsTheirRequestSays(t *testing.T) {
	s := serveWithin(t, filepath.Join(testmodels.Probes(t), "iris"), // as the model "digits"
		batch.Limits{MaxBatch: 128, MaxQueue: 1, Slots: 1, Coalesce: true, Delay: time.Hour})
	s.TFServing.Limits.Priority, s.TFServing.Limits.TrustPriority = "X-Priority", true
	for _, method := range []string{"classify", "regress"} {
		body, err := json.Marshal(map[string]any{"signature_name": method, "examples": testmodels.Iris(t).Examples[:1]})
		if err != nil {
			t.Fatal(err)
		}
		begin := func(class string) (code chan int, end func()) {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			request, err := http.NewRequestWithContext(ctx, "POST", s.url+"/v1/models/digits:"+method, strings.NewReader(string(body)))
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("X-Priority", class)
			code = make(chan int, 1)
			go func() {
				response, err := http.DefaultClient.Do(request)
				if err != nil {
					code <- 0
					return
				}
				_ = response.Body.Close()
				code <- response.StatusCode
			}()
			return code, cancel
		}
		first, leave := begin("batch")
		s.until(t, func() bool { return s.waiting(t) == 1 })
		second, end := begin("critical")
		if got := <-first; got != http.StatusServiceUnavailable {
			t.Errorf("%s of class batch was answered with %d; what is critical should have had its place", method, got)
		}
		end()
		<-second
		leave()
		s.until(t, func() bool { return s.waiting(t) == 0 })
	}
}
