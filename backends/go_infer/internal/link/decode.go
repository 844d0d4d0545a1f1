package link

import "encoding/binary"

// decoder takes one direction of one connection. client says who receives.
type decoder struct {
	client  bool
	greeted bool
	mine    settings
	heads   map[uint16]*head
}

func newDecoder(mine settings, client bool) *decoder {
	return &decoder{client: client, mine: mine, heads: map[uint16]*head{}}
}

// next decodes the frame at the start of data into f and returns its length, or 0 if it is not all there, with the length it has if
// that is known. An error is a *violation.
func (d *decoder) next(data []byte, f *frame) (taken, need int, err error) {
	if len(data) < headerSize {
		return 0, headerSize, nil
	}
	length := binary.LittleEndian.Uint32(data)
	kind, flags := data[4], data[5]
	if length > d.mine.maxFrame {
		return 0, 0, breach(errSize, "a frame of %d bytes; %d are allowed", length, d.mine.maxFrame)
	}
	if length > maxControl && kind != typeRequest && kind != typeResponse && kind != typeData {
		return 0, 0, breach(errSize, "a control frame of %d bytes", length)
	}
	total := headerSize + int(length)
	if len(data) < total {
		return 0, total, nil
	}
	f.kind, f.end, f.code, f.stream = kind, flags == flagEnd, binary.LittleEndian.Uint16(data[6:]), binary.LittleEndian.Uint32(data[8:])
	payload := data[headerSize:total:total]
	f.body, f.extra, f.head, f.told = payload, nil, nil, false
	switch {
	case kind == typeHello && !d.greeted && flags == 0 && f.stream == 0:
		err = readHello(f, payload)
		d.greeted = err == nil
	case kind == typeError && flags == 0 && f.stream == 0:
		f.body = payload[:min(len(payload), maxText)]
	case !d.greeted:
		err = breach(errProtocol, "the first frame is not HELLO")
	case kind == typeHello:
		err = breach(errProtocol, "a second HELLO")
	case kind&optional != 0:
	case kind == typeRequest && !d.client:
		err = d.request(f, flags, payload)
	case kind == typeResponse && d.client:
		err = d.response(f, flags, payload)
	default:
		err = d.small(f, flags, payload)
	}
	return total, total, err
}

func readHello(f *frame, payload []byte) error {
	if f.code != version {
		return breach(errVersion, "version %d", f.code)
	}
	if len(payload)%6 != 4 || binary.LittleEndian.Uint32(payload) != magic {
		return breach(errProtocol, "not a HELLO")
	}
	f.announced = silent
	values := f.announced.each()
	seen := [len(values)]bool{}
	for at := 4; at < len(payload); at += 6 {
		number, value := int(binary.LittleEndian.Uint16(payload[at:]))-1, binary.LittleEndian.Uint32(payload[at+2:])
		if number < 0 || number >= len(values) {
			continue // of a later revision
		}
		if seen[number] || value < bounds[number][0] || value > bounds[number][1] {
			return breach(errProtocol, "setting %d is %d, or said twice", number+1, value)
		}
		seen[number] = true
		*values[number] = value
	}
	return nil
}

func checkStream(f *frame) error {
	if f.stream == 0 || f.stream > maxStream {
		return breach(errStream, "stream %d cannot be", f.stream)
	}
	return nil
}

func (d *decoder) request(f *frame, flags byte, payload []byte) error {
	if flags > flagEnd || f.code > 7 || len(payload) < 12 {
		return breach(errProtocol, "flags %#x, priority %d, %d bytes in REQUEST", flags, f.code, len(payload))
	}
	f.deadline = binary.LittleEndian.Uint32(payload)
	if err := d.lengths(f, payload[4:]); err != nil {
		return err
	}
	if f.head == nil {
		return breach(errHead, "a request without a head")
	}
	return checkStream(f)
}

func (d *decoder) response(f *frame, flags byte, payload []byte) error {
	if flags > flagEnd || f.code < 200 || f.code > 599 || len(payload) < 8 {
		return breach(errProtocol, "flags %#x, status %d, %d bytes in RESPONSE", flags, f.code, len(payload))
	}
	if err := d.lengths(f, payload); err != nil {
		return err
	}
	return checkStream(f)
}

// vouching says that a field beside a head is one that every request of a gateway has and no handler of ours asks for, so that it is
// not worth a copy of the head's fields.
func vouching(name string) bool {
	switch name {
	case "X-Request-Id", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded", "Via":
		return true
	}
	return false
}

// lengths reads what REQUEST and RESPONSE have in common: slot, extra fields, head, body.
func (d *decoder) lengths(f *frame, payload []byte) error {
	slot, extra := binary.LittleEndian.Uint16(payload), int(binary.LittleEndian.Uint16(payload[2:]))
	length, zero := int(binary.LittleEndian.Uint16(payload[4:])), binary.LittleEndian.Uint16(payload[6:])
	rest := payload[8:]
	if extra+length > len(rest) || zero != 0 {
		return breach(errProtocol, "a frame contradicts its own lengths")
	}
	f.extra = rest[:extra]
	f.body = rest[extra+length:]
	var err error
	switch {
	case length > 0:
		if length > int(d.mine.maxHead) {
			return breach(errHead, "a head of %d bytes", length)
		}
		if slot > 0 && (uint32(slot) > d.mine.slots || length > maxRemembered) {
			return breach(errHead, "slot %d of %d, or a head of %d bytes is too large to be remembered", slot, d.mine.slots, length)
		}
		if f.head, err = readHead(rest[extra:extra+length], !d.client); err != nil {
			return err
		}
		if slot > 0 {
			d.heads[slot] = f.head
		}
	case slot > 0:
		if f.head = d.heads[slot]; f.head == nil {
			return breach(errHead, "nothing is remembered in slot %d", slot)
		}
	}
	if extra > 0 {
		return eachField(f.extra, func(name string, _ []byte) { f.told = f.told || !vouching(name) })
	}
	return nil
}

// small reads every other frame.
func (d *decoder) small(f *frame, flags byte, payload []byte) error {
	if f.kind == typeData {
		if flags > flagEnd || f.code != 0 || len(payload) == 0 && flags == 0 {
			return breach(errProtocol, "flags %#x, code %d, %d bytes in DATA", flags, f.code, len(payload))
		}
		return checkStream(f)
	}
	if flags != 0 {
		return breach(errProtocol, "flags %#x in a frame of type %d", flags, f.kind)
	}
	if f.kind == typeCancel {
		if len(payload) != 0 {
			return breach(errProtocol, "CANCEL has no payload")
		}
		return checkStream(f)
	}
	if f.code != 0 {
		return breach(errProtocol, "code %d in a frame of type %d", f.code, f.kind)
	}
	if f.kind == typeWindow {
		f.credit = 0
		if len(payload) == 4 {
			f.credit = binary.LittleEndian.Uint32(payload)
		}
		if f.stream > maxStream {
			return breach(errStream, "stream %d cannot be", f.stream)
		}
		if f.credit == 0 || f.credit > maxWindow {
			return breach(errFlow, "a credit of %d bytes", f.credit)
		}
		return nil
	}
	if f.stream != 0 {
		return breach(errProtocol, "stream %d in a frame of type %d", f.stream, f.kind)
	}
	switch {
	case (f.kind == typePing || f.kind == typePong) && len(payload) == 8:
		return nil
	case f.kind == typeLoad && d.client && len(payload) >= 16:
		f.load = Load{binary.LittleEndian.Uint32(payload), binary.LittleEndian.Uint32(payload[4:]),
			binary.LittleEndian.Uint32(payload[8:]), binary.LittleEndian.Uint32(payload[12:])}
		return nil
	case f.kind == typeDrain && d.client && len(payload) == 0:
		return nil
	}
	return breach(errProtocol, "a frame of type %d with %d bytes", f.kind, len(payload))
}
