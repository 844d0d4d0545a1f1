package server

import (
	"net/http"
	"strconv"
	"strings"
)

// Load is how busy the server is: requests that wait and that run, and how many can run at once.
type Load struct {
	Waiting, Running, Capacity int
}

// reporting says the load with the answer's head (ORCA: endpoint-load-metrics, as JSON or TEXT), as it is when the answer begins.
type reporting struct {
	http.ResponseWriter
	load func() Load
	text bool
	said bool
}

// reported is w, or what says the load there if the request asks for it in a format that is known.
func reported(w http.ResponseWriter, r *http.Request, load func() Load) http.ResponseWriter {
	asked := r.Header["Endpoint-Load-Metrics-Format"]
	if len(asked) == 0 || load == nil {
		return w
	}
	switch format := asked[0]; {
	case strings.EqualFold(format, "JSON"):
		return &reporting{ResponseWriter: w, load: load}
	case strings.EqualFold(format, "TEXT"):
		return &reporting{ResponseWriter: w, load: load, text: true}
	}
	return w
}

func (w *reporting) say() {
	if w.said {
		return
	}
	w.said = true
	load := w.load()
	load.Running = max(load.Running-1, 0) // this one is as good as answered
	w.Header()["Endpoint-Load-Metrics"] = []string{load.orca(w.text)}
}

func (w *reporting) WriteHeader(status int) {
	w.say()
	w.ResponseWriter.WriteHeader(status)
}

func (w *reporting) Write(data []byte) (int, error) {
	w.say()
	return w.ResponseWriter.Write(data)
}

// Unwrap is for http.ResponseController.
func (w *reporting) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// orca is the header's value. The utilisation counts what waits, too, so it tells how far above full the server is.
func (l Load) orca(text bool) string {
	full := strconv.FormatFloat(float64(l.Waiting+l.Running)/float64(max(l.Capacity, 1)), 'f', 3, 64)
	names, values := [...]string{"queued", "running", "capacity"}, [...]int{l.Waiting, l.Running, l.Capacity}
	out := make([]byte, 0, 128)
	if text {
		out = append(append(out, "TEXT application_utilization="...), full...)
		for i, name := range names {
			out = strconv.AppendInt(append(append(append(out, ", named_metrics."...), name...), '='), int64(values[i]), 10)
		}
		return string(out)
	}
	out = append(append(append(out, `JSON {"application_utilization":`...), full...), `,"named_metrics":{`...)
	for i, name := range names {
		if i > 0 {
			out = append(out, ',')
		}
		out = strconv.AppendInt(append(append(append(out, '"'), name...), `":`...), int64(values[i]), 10)
	}
	return string(append(out, "}}"...))
}
