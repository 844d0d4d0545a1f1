package api

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
)

// serveBody serves one request with that body, whose length is announced as so many bytes; inside is called by the operation.
func serveBody(limits Limits, body io.Reader, length int64, inside func(x *Exchange)) *httptest.ResponseRecorder {
	request := httptest.NewRequest(http.MethodPost, "/", body)
	request.ContentLength = length
	recorder := httptest.NewRecorder()
	Serve(recorder, request, limits, nil, func(x *Exchange) error {
		inside(x)
		return nil
	})
	return recorder
}

func TestAnAnnouncedBodyTakesMemoryAsItArrives(t *testing.T) {
	x := &Exchange{Header: http.Header{}}
	x.Request = httptest.NewRequest(http.MethodPost, "/", strings.NewReader("{"))
	x.Request.ContentLength = 16 << 20
	if err := x.read(16 << 20); err == nil {
		t.Error("one byte was taken for 16 MiB")
	}
	if cap(x.Body) > firstPiece {
		t.Errorf("one byte of an announced body takes %d", cap(x.Body))
	}
}

func TestABodyArrivesWholeInPiecesOfAnySize(t *testing.T) {
	for _, size := range []int{0, 1, firstPiece - 1, firstPiece, firstPiece + 1, 5*firstPiece + 3, 1 << 20} {
		want := bytes.Repeat([]byte("sluice"), size/6+1)[:size]
		for name, reader := range map[string]io.Reader{"at once": bytes.NewReader(want), "by halves": iotest.HalfReader(bytes.NewReader(want))} {
			got := []byte("nothing was run")
			serveBody(Limits{MaxBody: 1 << 20, Bodies: NewBudget(4 << 20)}, reader, int64(size), func(x *Exchange) { got = bytes.Clone(x.Body) })
			if !bytes.Equal(got, want) {
				t.Errorf("%d bytes %s: got %d", size, name, len(got))
			}
		}
	}
}

func TestBodiesTogetherAreBounded(t *testing.T) {
	const each = 300 << 10
	for _, c := range []struct {
		name   string
		length int64 // announced; -1: not
		budget int
		code   int
	}{
		{"two fit", each, 2 * each, 200},
		{"two do not fit", each, 2*each - 1, 503},
		{"of unknown length, two fit", -1, 4 * each, 200},
		{"of unknown length, two do not fit", -1, 2*each - 1, 503},
	} {
		t.Run(c.name, func(t *testing.T) {
			budget := NewBudget(c.budget)
			limits := Limits{MaxBody: 1 << 20, Bodies: budget}
			body := func() io.Reader { return bytes.NewReader(make([]byte, each)) }
			var second *httptest.ResponseRecorder
			first := serveBody(limits, body(), c.length, func(*Exchange) {
				second = serveBody(limits, body(), c.length, func(*Exchange) {})
			})
			if first.Code != 200 || second.Code != c.code {
				t.Errorf("%d and %d, want 200 and %d", first.Code, second.Code, c.code)
			}
			if refused := second.Code == 503; refused != (second.Header().Get("Retry-After") != "") || refused != strings.Contains(second.Body.String(), "--max_bodies") {
				t.Errorf("%v: %s", second.Header(), second.Body)
			}
			if budget.Held() != 0 {
				t.Errorf("%d bytes are held at the end", budget.Held())
			}
			if third := serveBody(limits, body(), c.length, func(*Exchange) {}); third.Code != 200 {
				t.Errorf("afterwards: %d", third.Code)
			}
		})
	}
}

func TestAnAnswerIsBounded(t *testing.T) {
	for bytes, code := range map[int]int{100: 200, 101: 400} {
		r := serveBody(Limits{MaxBody: 10, Answer: 100}, strings.NewReader(""), 0, func(x *Exchange) { x.Answer = append(x.Answer, make([]byte, bytes)...) })
		if r.Code != code || code != 200 && !strings.Contains(r.Body.String(), "--max_answer") {
			t.Errorf("%d bytes: %d %s", bytes, r.Code, r.Body)
		}
	}
}

func TestPatienceOfAnyLengthIsInTheFuture(t *testing.T) {
	for _, value := range []string{"99999999H", "99999999M", "2540400h", "1000H", "99999999n", "0m"} {
		if patience, err := Patience(value); err != nil || patience < 0 || patience > longest {
			t.Errorf("%s: %v, %v", value, patience, err)
		}
	}
}
