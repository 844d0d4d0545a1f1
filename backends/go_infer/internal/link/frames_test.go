package link

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// vectors are the recorded bytes that the gateway's tests read too.
const vectors = "../../../../tests/vectors/link"

func load[T any](t testing.TB, name string) []T {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(vectors, name))
	if err != nil {
		t.Fatal(err)
	}
	var all []T
	if err := json.Unmarshal(content, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	data, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

type described struct {
	Hex, Type, Method, Target, Body, Text string
	Stream, Credit                        uint32
	DeadlineUs                            uint32 `json:"deadline_us"`
	Priority, Status, Slot, Code          uint16
	End, Repeated                         bool
	Fields, Extra                         [][2]string
	Settings                              map[string]uint32
	Queued, Running, Capacity             uint32
	ServiceUs                             uint32 `json:"service_us"`
}

type session struct {
	Name, Receiver string
	Frames         []described
}

func (d *described) settings() settings {
	s := d.Settings
	return settings{s["max_frame"], s["max_streams"], s["stream_window"], s["connection_window"], s["max_head"], s["slots"]}
}

// latin turns the vectors' text, one code point per byte, into the bytes.
func latin(text string) string {
	var out []byte
	for _, r := range text {
		out = append(out, byte(r))
	}
	return string(out)
}

// rawFields keeps the order and the names as they are, where http.Header does not.
func rawFields(fields [][2]string) (out []byte) {
	for _, f := range fields {
		name := f[0]
		for i, known := range names {
			if known == name {
				name = canonical[i]
			}
		}
		out = appendField(out, name, latin(f[1]))
	}
	return out
}

func (d *described) encode(t *testing.T) []byte {
	body := unhex(t, d.Body)
	head := rawFields(d.Fields)
	if d.Type == "request" {
		head = append(appendRequestHead(nil, d.Method, d.Target), head...)
	}
	if d.Repeated {
		head = nil
	}
	extra := rawFields(d.Extra)
	switch d.Type {
	case "hello":
		return appendHello(nil, d.settings())
	case "request":
		return appendRequest(nil, d.Stream, d.DeadlineUs, d.Priority, d.Slot, extra, head, body, d.End)
	case "response":
		return appendResponse(nil, d.Stream, d.Status, d.Slot, extra, head, body, d.End)
	case "data":
		return appendData(nil, d.Stream, body, d.End)
	case "window":
		return appendWindow(nil, d.Stream, d.Credit)
	case "cancel":
		return appendCancel(nil, d.Stream, d.Code)
	case "load":
		return appendLoad(nil, Load{d.Queued, d.Running, d.Capacity, d.ServiceUs})
	case "drain":
		return appendDrain(nil)
	case "ping":
		return appendPing(nil, typePing, body)
	case "pong":
		return appendPing(nil, typePong, body)
	case "error":
		return appendError(nil, d.Code, d.Text)
	}
	t.Fatalf("a frame of type %q", d.Type)
	return nil
}

func (d *described) check(t *testing.T, f *frame) {
	t.Helper()
	kinds := map[string]byte{"hello": typeHello, "request": typeRequest, "response": typeResponse, "data": typeData, "window": typeWindow,
		"cancel": typeCancel, "load": typeLoad, "drain": typeDrain, "ping": typePing, "pong": typePong, "error": typeError}
	same := f.kind == kinds[d.Type] && f.stream == d.Stream && f.end == d.End
	body := unhex(t, d.Body)
	switch d.Type {
	case "hello":
		same = same && f.announced == d.settings()
	case "request", "response":
		same = same && f.code == d.Status+d.Priority && bytes.Equal(f.body, body) && bytes.Equal(f.extra, rawFields(d.Extra))
		if d.Type == "request" {
			same = same && f.head.method == d.Method && f.head.target == d.Target && f.deadline == d.DeadlineUs && f.head.host == latin(d.Fields[0][1])
		}
		for _, field := range d.Fields {
			if field[0] != "host" && f.head.fields.Get(field[0]) != latin(field[1]) {
				same = false
			}
		}
	case "data", "ping", "pong":
		same = same && bytes.Equal(f.body, body)
	case "window":
		same = same && f.credit == d.Credit
	case "cancel":
		same = same && f.code == d.Code
	case "load":
		same = same && f.load == Load{d.Queued, d.Running, d.Capacity, d.ServiceUs}
	case "error":
		same = same && f.code == d.Code && string(f.body) == d.Text
	}
	if !same {
		t.Errorf("%s: read as %+v", d.Hex, f)
	}
}

func TestRecordedFramesAreMadeAndReadAlike(t *testing.T) {
	for _, s := range load[session](t, "frames.json") {
		t.Run(s.Name, func(t *testing.T) {
			decoder := newDecoder(silent, s.Receiver == "client")
			for i := range s.Frames {
				d := &s.Frames[i]
				data := unhex(t, d.Hex)
				if made := d.encode(t); !bytes.Equal(made, data) {
					t.Errorf("%s made\n%x, want\n%x", d.Type, made, data)
				}
				var f frame
				for cut := range data {
					if taken, need, err := decoder.next(data[:cut], &f); taken != 0 || err != nil || need <= cut {
						t.Fatalf("%d of %d bytes: took %d, needs %d, %v", cut, len(data), taken, need, err)
					}
				}
				taken, _, err := decoder.next(append(data[:len(data):len(data)], "more"...), &f)
				if err != nil || taken != len(data) {
					t.Fatalf("took %d of %d: %v", taken, len(data), err)
				}
				d.check(t, &f)
			}
		})
	}
}

type wrong struct {
	Name, Receiver, Hex string
	Code                uint16
}

// decodeAll decodes until the bytes end or break the rules.
func decodeAll(data []byte, client bool) error {
	decoder := newDecoder(silent, client)
	var f frame
	for {
		taken, _, err := decoder.next(data, &f)
		if err != nil || taken == 0 {
			return err
		}
		data = data[taken:]
	}
}

func TestRecordedViolationsEndTheConnectionWithTheirCode(t *testing.T) {
	for _, w := range load[wrong](t, "violations.json") {
		var broken *violation
		if err := decodeAll(unhex(t, w.Hex), w.Receiver == "client"); !errors.As(err, &broken) || broken.code != w.Code {
			t.Errorf("%s: %v, want code %d", w.Name, err, w.Code)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range load[session](f, "frames.json") {
		var data []byte
		for _, d := range s.Frames {
			data = append(data, unhex(f, d.Hex)...)
		}
		f.Add(data, s.Receiver == "client")
	}
	for _, w := range load[wrong](f, "violations.json") {
		f.Add(unhex(f, w.Hex), w.Receiver == "client")
	}
	f.Fuzz(func(t *testing.T, data []byte, client bool) {
		var broken *violation
		if err := decodeAll(data, client); err != nil && !errors.As(err, &broken) {
			t.Errorf("%v is not a violation", err)
		}
	})
}
