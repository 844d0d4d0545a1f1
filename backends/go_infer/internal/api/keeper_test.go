package api

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// keeper keeps what it is given.
type keeper struct {
	*httptest.ResponseRecorder
	kept []byte
}

func (k *keeper) Take(body []byte) []byte {
	k.kept = body
	return nil
}

func TestALargeAnswerIsHandedOverAndNotTouchedAgain(t *testing.T) {
	ask := func(fill byte, size int, packed bool) *keeper {
		k := &keeper{ResponseRecorder: httptest.NewRecorder()}
		r := httptest.NewRequest("POST", "/", strings.NewReader("{}"))
		if packed {
			r.Header.Set("Accept-Encoding", "gzip")
		}
		code := Serve(k, r, Limits{MaxBody: 100, GzipFrom: 1 << 20}, nil, func(x *Exchange) error {
			x.Answer = append(x.Answer, bytes.Repeat([]byte{fill}, size)...)
			return nil
		})
		if code != http.StatusOK {
			t.Fatal(code)
		}
		return k
	}
	first := ask('a', handOver, false)
	for range 10 { // of which one may be given the first one's exchange
		ask('b', handOver, false)
	}
	if !bytes.Equal(first.kept, bytes.Repeat([]byte("a"), handOver)) {
		t.Errorf("%d bytes were handed over, and they are others by now", len(first.kept))
	}
	if small := ask('c', handOver-1, false); small.kept != nil || small.Body.Len() != handOver-1 {
		t.Error("a small answer was handed over")
	}
	if packed := ask('d', 2<<20, true); len(packed.kept) > 0 || packed.Body.Len() == 0 { // its packed form is small
		t.Errorf("of a packed answer %d bytes were handed over", len(packed.kept))
	}
}
