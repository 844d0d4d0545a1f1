package model

import (
	"strings"
	"testing"

	"sluicegate/go_infer/internal/tensor"
)

func TestOneRequestIsBoundedInRowsAndItsAnswerInBytes(t *testing.T) {
	m, pool, _, err := rowsProbe(t, "", func(o *Options) { o.MaxRows, o.MaxAnswer = 50, 320 })
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		signature string
		rows      int
		text      string
	}{
		{DefaultSignature, 40, ""},
		{DefaultSignature, 41, "--max_answer"}, // of 8 bytes each
		{DefaultSignature, 50, "--max_answer"},
		{DefaultSignature, 51, "--max_rows"},
		{"filtered", 51, "--max_rows"},
	} {
		_, _, err := pairs(t, signature(t, m, c.signature), pool, ones(2*c.rows)...)
		if c.text == "" && err != nil || c.text != "" && (err == nil || !strings.Contains(err.Error(), c.text)) {
			t.Errorf("%d rows of %s: %v, want %q", c.rows, c.signature, err, c.text)
		}
	}
}

func TestStringsHoldTheirHeadersToo(t *testing.T) {
	for want, strings := range map[int][][]byte{24: texts(""), 72: texts("", "", ""), 27: texts("abc")} {
		if got := held(&tensor.Value{Type: tensor.String, Dims: []int64{int64(len(strings))}, Strings: strings}); got != want {
			t.Errorf("%q: %d, want %d", strings, got, want)
		}
	}
}
