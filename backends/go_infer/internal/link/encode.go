package link

import "encoding/binary"

// How frames are made: each is appended to what leaves.

func appendHeader(out []byte, length int, kind, flags byte, code uint16, stream uint32) []byte {
	out = binary.LittleEndian.AppendUint32(out, uint32(length))
	out = append(out, kind, flags)
	out = binary.LittleEndian.AppendUint16(out, code)
	return binary.LittleEndian.AppendUint32(out, stream)
}

func endFlag(end bool) byte {
	if end {
		return flagEnd
	}
	return 0
}

func appendHello(out []byte, s settings) []byte {
	values := s.each()
	out = appendHeader(out, 4+6*len(values), typeHello, 0, version, 0)
	out = binary.LittleEndian.AppendUint32(out, magic)
	for i, value := range values {
		out = binary.LittleEndian.AppendUint16(out, uint16(i+1))
		out = binary.LittleEndian.AppendUint32(out, *value)
	}
	return out
}

func appendLengths(out []byte, slot uint16, extra, head []byte) []byte {
	out = binary.LittleEndian.AppendUint16(out, slot)
	out = binary.LittleEndian.AppendUint16(out, uint16(len(extra)))
	out = binary.LittleEndian.AppendUint16(out, uint16(len(head)))
	out = binary.LittleEndian.AppendUint16(out, 0)
	out = append(out, extra...)
	return append(out, head...)
}

func appendRequest(out []byte, stream, deadline uint32, priority, slot uint16, extra, head, body []byte, end bool) []byte {
	out = appendHeader(out, 12+len(extra)+len(head)+len(body), typeRequest, endFlag(end), priority, stream)
	out = binary.LittleEndian.AppendUint32(out, deadline)
	out = appendLengths(out, slot, extra, head)
	return append(out, body...)
}

func appendResponse(out []byte, stream uint32, code, slot uint16, extra, head, body []byte, end bool) []byte {
	out = appendHeader(out, 8+len(extra)+len(head)+len(body), typeResponse, endFlag(end), code, stream)
	out = appendLengths(out, slot, extra, head)
	return append(out, body...)
}

func appendData(out []byte, stream uint32, data []byte, end bool) []byte {
	return append(appendHeader(out, len(data), typeData, endFlag(end), 0, stream), data...)
}

func appendWindow(out []byte, stream, credit uint32) []byte {
	return binary.LittleEndian.AppendUint32(appendHeader(out, 4, typeWindow, 0, 0, stream), credit)
}

func appendCancel(out []byte, stream uint32, code uint16) []byte {
	return appendHeader(out, 0, typeCancel, 0, code, stream)
}

func appendLoad(out []byte, load Load) []byte {
	out = appendHeader(out, 16, typeLoad, 0, 0, 0)
	for _, value := range [...]uint32{load.Queued, load.Running, load.Capacity, load.ServiceMicros} {
		out = binary.LittleEndian.AppendUint32(out, value)
	}
	return out
}

func appendDrain(out []byte) []byte { return appendHeader(out, 0, typeDrain, 0, 0, 0) }

func appendPing(out []byte, kind byte, payload []byte) []byte {
	return append(appendHeader(out, 8, kind, 0, 0, 0), payload[:8]...)
}

func appendError(out []byte, code uint16, text string) []byte {
	text = text[:min(len(text), maxText)]
	return append(appendHeader(out, len(text), typeError, 0, code, 0), text...)
}
