package model_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluicegate/go_infer/internal/model"
	"sluicegate/go_infer/internal/savedmodel"
	"sluicegate/go_infer/internal/session"
	"sluicegate/go_infer/internal/tensor"
	"sluicegate/go_infer/internal/testmodels"
)

// message is a protobuf field that holds bytes.
func message(field byte, content ...byte) []byte {
	return append(binary.AppendUvarint([]byte{field<<3 | 2}, uint64(len(content))), content...)
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// recorded is a warm-up file with one predict request: `image` as the TensorProto of those fields.
func recorded(signature, input string, proto ...byte) string {
	request := join(message(1, message(3, []byte(signature)...)...), message(2, join(message(1, []byte(input)...), message(2, proto...))...))
	log := message(6, message(1, request...)...)
	masked := func(content []byte) []byte {
		sum := crc32.Checksum(content, crc32.MakeTable(crc32.Castagnoli))
		return binary.LittleEndian.AppendUint32(nil, (sum>>15|sum<<17)+0xa282ead8)
	}
	length := binary.LittleEndian.AppendUint64(nil, uint64(len(log)))
	return string(join(length, masked(length), log, masked(log)))
}

// shape is TensorProto's dtype and tensor_shape.
func shape(dtype byte, dims ...byte) []byte {
	var all []byte
	for _, dim := range dims {
		all = append(all, message(2, 8, dim)...)
	}
	return join([]byte{8, dtype}, message(2, all...))
}

func TestRecordedRequestsAreRunBeforeAVersionIsServed(t *testing.T) {
	one := []byte{5<<3 | 2, 4, 0, 0, 0x80, 0x3f} // float_val: 1, for all 64
	for _, c := range []struct{ name, content, says string }{
		{"one number for all", recorded("", "image", join(shape(1, 1, 64), one)...), ""},
		{"three rows of bytes", recorded("serving_default", "image", join(shape(1, 3, 64), message(4, make([]byte, 3*64*4)...))...), ""},
		{"more rows than a batch", recorded("", "image", join(shape(1, 70, 64), one)...), ""},
		{"a row too narrow", recorded("", "image", join(shape(1, 1, 63), one)...), "warming: assets.extra/tf_serving_warmup_requests: record 0: "},
		{"another type", recorded("", "image", shape(3, 1, 64)...), `record 0: input "image" is int32; the signature wants float`},
		{"another input", recorded("", "picture", join(shape(1, 1, 64), one)...), `record 0: input "image" of signature "serving_default" is missing`},
		{"another signature", recorded("x", "image", join(shape(1, 1, 64), one)...), `record 0: Serving signature name: "x" not found in signature def`},
		{"too few bytes", recorded("", "image", join(shape(1, 1, 64), message(4, 1, 2, 3))...), `input "image" has 3 bytes; its shape [1,64] needs 256`},
		{"no rows", recorded("", "image", join(shape(1, 0, 64), one)...), `numbers, more than its shape has`},
		{"not a record", "hello, world", "record 0: the checksum of its length is wrong"},
	} {
		t.Run(c.name, func(t *testing.T) {
			pool := tensor.NewPool()
			m, err := model.Load("digits", 1, spoil(t, func(directory string) error {
				return os.WriteFile(filepath.Join(directory, savedmodel.WarmupFile), []byte(c.content), 0o600)
			}), options(pool))
			if err == nil {
				m.Close()
			}
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("got %v\nwant %s", err, c.says)
			}
			if pool.Live() != 0 || session.Live() != 0 {
				t.Errorf("leaked %d slabs and %d tensors", pool.Live(), session.Live())
			}
			pool.Drain()
		})
	}
}

func TestASignatureOfAnotherTypeThanTheGraphIsRefused(t *testing.T) {
	pool := tensor.NewPool()
	defer pool.Drain()
	m, err := model.Load("digits", 1, spoil(t, func(directory string) error {
		path := filepath.Join(directory, "saved_model.pb")
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		const input = "serving_default_image:0\x10"
		if !bytes.Contains(content, []byte(input+"\x01")) {
			t.Fatal("the model has another input than this test knows")
		}
		return os.WriteFile(path, bytes.ReplaceAll(content, []byte(input+"\x01"), []byte(input+"\x03")), 0o600)
	}), options(pool))
	if err == nil {
		m.Close()
		t.Fatal("it was loaded")
	}
	if !strings.Contains(err.Error(), "in the graph") || !strings.Contains(err.Error(), "int32") {
		t.Errorf("got %v", err)
	}
	if pool.Live() != 0 || session.Live() != 0 {
		t.Errorf("leaked %d slabs and %d tensors", pool.Live(), session.Live())
	}
}

func TestAShadowGetsCopiesAndChangesNoAnswer(t *testing.T) {
	heldout := testmodels.Digits(t)
	first, pool := load(t, "digits", 2)
	other, err := model.Load("digits", 1, filepath.Join(testmodels.Directory(t), "digits/1"), options(pool))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	s, _ := first.Signature("")
	want := labels(t, s, pool, heldout.Instances[:40])
	outcomes, released := make(chan model.Outcome, 100), make(chan struct{}, 100)
	first.Mirror(model.NewShadow(100, 100, func(but *model.Model) (*model.Model, func()) {
		if but != first {
			return nil, nil
		}
		return other, func() { released <- struct{}{} }
	}, func(o model.Outcome) { outcomes <- o }))
	for range 10 {
		if got := labels(t, s, pool, heldout.Instances[:40]); !slices.Equal(got, want) {
			t.Errorf("labels %v\nwant %v", got, want)
		}
	}
	for range 10 {
		if o := <-outcomes; o != model.Answered {
			t.Errorf("a copy ended with %v", o)
		}
		<-released
	}
	first.Mirror(model.NewShadow(100, 0, func(*model.Model) (*model.Model, func()) {
		return other, func() { released <- struct{}{} }
	}, func(o model.Outcome) { outcomes <- o }))
	ask(t, s, pool, 1)
	if o := <-outcomes; o != model.Skipped {
		t.Errorf("a copy without a place ended with %v", o)
	}
	<-released
	first.Mirror(nil)
	ask(t, s, pool, 1)
}
