// Package control is the operators' API, on a listener of its own: which versions there are, and what shall be served.
//
//	GET  /models                         every version of every model, its state, labels and memory; and those that labels miss
//	POST /reload                         read the config files again, as SIGHUP does
//	POST /models/M/rollback              withdraw the version that answers; the one before answers instead
//	POST /models/M/restore               serve again what was withdrawn
//	POST /models/M/load, /models/M/unload
//	POST /models/M/labels/L?version=N    point a label at a version that is loaded
//	POST /traffic                        the body is a traffic config
//
// Answers are JSON; a refusal is {"error": "..."} and changes nothing.
package control

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"

	"sluicegate/go_infer/internal/api"
	"sluicegate/go_infer/internal/modelconfig"
	"sluicegate/go_infer/internal/repository"
	"sluicegate/go_infer/internal/status"
)

// largestBody is that of a traffic config, generously.
const largestBody = 1 << 20

type entry struct {
	Model   string   `json:"model"`
	Version int64    `json:"version"`
	State   string   `json:"state"`
	Labels  []string `json:"labels,omitempty"`
	Error   string   `json:"error,omitempty"`
	LoadMS  int64    `json:"load_ms,omitempty"`
	Bytes   int64    `json:"reckoned_bytes,omitempty"`
}

// Handler makes the API. reload reads the config files again.
func Handler(repo *repository.Repository, reload func() error) http.Handler {
	mux := http.NewServeMux()
	answer := func(pattern string, act func(r *http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			said, err := act(r)
			if err != nil {
				api.Refuse(w, err)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(said)
		})
	}
	done := map[string]string{"status": "done"}
	answer("GET /models", func(*http.Request) (any, error) {
		all := []entry{}
		for _, e := range append(repo.Index(), repo.Lost()...) {
			said := entry{Model: e.Name, Version: e.Number, State: e.State.String(), Labels: e.Labels, LoadMS: e.Took.Milliseconds(), Bytes: e.Bytes}
			if e.Err != nil {
				said.Error = e.Err.Error()
			}
			all = append(all, said)
		}
		return all, nil
	})
	answer("POST /reload", func(*http.Request) (any, error) {
		if err := reload(); err != nil {
			var known *status.Error
			if errors.As(err, &known) {
				return nil, err
			}
			return nil, status.Errorf(status.InvalidArgument, "%v", err)
		}
		return done, nil
	})
	answer("POST /models/{model}/rollback", func(r *http.Request) (any, error) {
		from, to, err := repo.Rollback(r.Context(), r.PathValue("model"))
		return map[string]int64{"from": from, "to": to}, err
	})
	answer("POST /models/{model}/restore", func(r *http.Request) (any, error) { return done, repo.Restore(r.PathValue("model")) })
	answer("POST /models/{model}/load", func(r *http.Request) (any, error) {
		return done, repo.Load(r.Context(), r.PathValue("model"))
	})
	answer("POST /models/{model}/unload", func(r *http.Request) (any, error) {
		return done, repo.Unload(r.Context(), r.PathValue("model"))
	})
	answer("POST /models/{model}/labels/{label}", func(r *http.Request) (any, error) {
		text := r.URL.Query().Get("version")
		number, err := strconv.ParseInt(text, 10, 64)
		if err != nil || number < 0 {
			return nil, status.Errorf(status.InvalidArgument, "version=%q is not a version; add ?version=N", text)
		}
		return done, repo.SetLabel(r.PathValue("model"), r.PathValue("label"), number)
	})
	answer("POST /traffic", func(r *http.Request) (any, error) {
		body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, largestBody))
		if err != nil {
			return nil, status.Errorf(status.InvalidArgument, "the body cannot be read: %v", err)
		}
		traffic, err := modelconfig.ParseTraffic("body", string(body))
		if err != nil {
			return nil, status.Errorf(status.InvalidArgument, "%v", err)
		}
		return done, repo.SetTraffic(traffic)
	})
	return mux
}
