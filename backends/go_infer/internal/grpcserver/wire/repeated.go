package wire

import "encoding/binary"

// Repeated is a repeated numeric field: how its values travel, and how large each is in memory.
type Repeated struct {
	Field int
	Kind  Kind // of one value: Fixed32 and Fixed64 are its bytes as they are in memory; a Varint is cut to its size
	Size  int
	Bool  bool // any value but 0 is 1
}

// Read copies the field's values from a message, packed or not, into memory, as many as there is room for. It returns the bytes it
// filled and how many values there were.
func (f Repeated) Read(message Reader, memory []byte) (filled, values int, err error) {
	for field, kind := message.Next(); field != 0; field, kind = message.Next() {
		switch {
		case field == f.Field && kind == Bytes:
			run := message.Message()
			n, count := f.packed(&run, memory[filled:])
			if run.bad {
				return filled, values, ErrMalformed
			}
			filled, values = filled+n, values+count
		case field == f.Field && kind == f.Kind:
			filled += f.one(&message, memory[filled:])
			values++
		default:
			message.Skip(kind)
		}
	}
	return filled, values, message.Err()
}

func (f Repeated) packed(run *Reader, memory []byte) (filled, values int) {
	if f.Kind != Varint {
		if run.left%f.Size != 0 {
			run.fail()
			return 0, 0
		}
		values = run.left / f.Size
		filled = min(run.left, len(memory))
		run.CopyTo(memory[:filled])
		return filled, values
	}
	for run.left > 0 {
		filled += f.one(run, memory[filled:])
		values++
	}
	return filled, values
}

// one reads one value and says how many bytes of memory it took: none if there is no room.
func (f Repeated) one(r *Reader, memory []byte) int {
	var value uint64
	switch f.Kind {
	case Fixed32:
		value = uint64(r.Fixed32())
	case Fixed64:
		value = r.Fixed64()
	default:
		value = r.Varint()
	}
	if len(memory) == 0 {
		return 0
	}
	if f.Bool {
		value = min(value, 1)
	}
	switch f.Size {
	case 1:
		memory[0] = byte(value)
	case 2:
		binary.LittleEndian.PutUint16(memory, uint16(value))
	case 4:
		binary.LittleEndian.PutUint32(memory, uint32(value))
	default:
		binary.LittleEndian.PutUint64(memory, value)
	}
	return f.Size
}
