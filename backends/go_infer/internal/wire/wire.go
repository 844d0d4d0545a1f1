// Package wire walks over protobuf messages where they lie, for the few fields of the few messages that this server reads.
package wire

import (
	"encoding/binary"
	"errors"
)

// ErrTruncated says that a protobuf message ends in the middle of a field.
var ErrTruncated = errors.New("protobuf: the message is cut short or not a protobuf")

// Fields calls visit for every field of a protobuf message. For a varint field value holds it; for a length-delimited one bytes does.
// Source: the protobuf encoding guide; groups (wire types 3 and 4) are refused, no TensorFlow message has them.
func Fields(message []byte, visit func(number int, value uint64, bytes []byte) error) error {
	for len(message) > 0 {
		tag, n := binary.Uvarint(message)
		if n <= 0 {
			return ErrTruncated
		}
		message = message[n:]
		var value uint64
		var bytes []byte
		switch tag & 7 {
		case 0:
			if value, n = binary.Uvarint(message); n <= 0 {
				return ErrTruncated
			}
			message = message[n:]
		case 1:
			if len(message) < 8 {
				return ErrTruncated
			}
			value, message = binary.LittleEndian.Uint64(message), message[8:]
		case 2:
			length, n := binary.Uvarint(message)
			if n <= 0 || length > uint64(len(message)-n) {
				return ErrTruncated
			}
			bytes, message = message[n:n+int(length)], message[n+int(length):]
		case 5:
			if len(message) < 4 {
				return ErrTruncated
			}
			value, message = uint64(binary.LittleEndian.Uint32(message)), message[4:]
		default:
			return ErrTruncated
		}
		if err := visit(int(tag>>3), value, bytes); err != nil {
			return err
		}
	}
	return nil
}
