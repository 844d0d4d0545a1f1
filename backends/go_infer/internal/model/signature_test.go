package model

import "testing"

// FuzzSignatures: no bytes make the reader panic or run away.
func FuzzSignatures(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0x2a, 0x03, 0x0a, 0x01, 'a'})
	f.Add([]byte{0x2a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0xff, 0x01})
	f.Fuzz(func(_ *testing.T, message []byte) {
		found, err := signatures(message)
		if err == nil {
			for _, signature := range found {
				signature.Batchable()
			}
		}
	})
}
