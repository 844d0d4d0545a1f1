package tfserving

import (
	"sluicegate/go_infer/internal/grpcserver/wire"
	"sluicegate/go_infer/internal/repository"
	"sluicegate/go_infer/internal/status"
)

// modelSpec is a ModelSpec as it lies in a request: name 1, version 2 (Int64Value), signature_name 3, version_label 4.
type modelSpec struct {
	given     bool
	name      []byte
	signature []byte
	wanted    repository.Wanted
}

func (m *modelSpec) read(message wire.Reader) error {
	m.given = true
	for field, kind := message.Next(); field != 0; field, kind = message.Next() {
		if kind != wire.Bytes {
			message.Skip(kind)
			continue
		}
		switch field { // 2 and 4 are one choice: the last given counts
		case 1:
			m.name = message.Text()
		case 2:
			number, err := integer(message.Message())
			if err != nil {
				return err
			}
			m.wanted = repository.Wanted{Version: number, Exact: true}
		case 3:
			m.signature = message.Text()
		case 4:
			m.wanted = repository.Wanted{Label: string(message.Text())}
		default:
			message.Skip(kind)
		}
	}
	return message.Err()
}

// integer reads google.protobuf.Int64Value: value 1.
func integer(message wire.Reader) (value int64, err error) {
	for field, kind := message.Next(); field != 0; field, kind = message.Next() {
		if field == 1 && kind == wire.Varint {
			value = int64(message.Varint())
		} else {
			message.Skip(kind)
		}
	}
	return value, message.Err()
}

// malformed says which message is not what it should be.
func malformed(message string, err error) error {
	if err == nil {
		return nil
	}
	return status.Errorf(status.InvalidArgument, "%s cannot be parsed: %v", message, err)
}
