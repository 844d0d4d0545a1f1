package image

import (
	"bytes"
	"encoding/binary"
)

// orientation reads tag 0x0112 of the first directory of a TIFF structure (Exif 2.32, 4.6.4): 1..8, and 1 if it is not there or makes no
// sense, as viewers do.
func orientation(tiff []byte) int {
	if len(tiff) < 8 {
		return 1
	}
	var order binary.ByteOrder
	switch string(tiff[:4]) {
	case "II*\x00":
		order = binary.LittleEndian
	case "MM\x00*":
		order = binary.BigEndian
	default:
		return 1
	}
	at := int64(order.Uint32(tiff[4:]))
	if at < 8 || at > int64(len(tiff))-2 {
		return 1
	}
	directory := tiff[at+2:]
	for range order.Uint16(tiff[at:]) {
		if len(directory) < 12 {
			return 1
		}
		tag, kind, value := order.Uint16(directory), order.Uint16(directory[2:]), order.Uint16(directory[8:])
		if tag == 0x0112 && kind == 3 && value >= 1 && value <= 8 {
			return int(value)
		}
		directory = directory[12:]
	}
	return 1
}

// exifOfJPEG walks the segments before the picture data to APP1 "Exif" (ITU T.81, B.1.1.4; Exif 2.32, 4.7.2).
func exifOfJPEG(content []byte) []byte {
	const prefix = "Exif\x00\x00"
	for rest := content[2:]; len(rest) >= 4 && rest[0] == 0xff; {
		marker := rest[1]
		if marker == 0xff { // a fill byte
			rest = rest[1:]
			continue
		}
		size := int(binary.BigEndian.Uint16(rest[2:]))
		if marker == 0xda || size < 2 || len(rest) < 2+size {
			return nil
		}
		segment := rest[4 : 2+size]
		if marker == 0xe1 && bytes.HasPrefix(segment, []byte(prefix)) {
			return segment[len(prefix):]
		}
		rest = rest[2+size:]
	}
	return nil
}

// exifOfPNG finds the chunk eXIf (PNG specification, third edition, 11.3.3.5).
func exifOfPNG(content []byte) []byte {
	for rest := content[8:]; len(rest) >= 12; {
		size := int64(binary.BigEndian.Uint32(rest))
		if size > int64(len(rest)-12) {
			return nil
		}
		if string(rest[4:8]) == "eXIf" {
			return rest[8 : 8+size]
		}
		rest = rest[12+size:]
	}
	return nil
}

// exifOfWebP finds the RIFF chunk EXIF, which may or may not repeat JPEG's prefix.
func exifOfWebP(content []byte) []byte {
	for rest := content[12:]; len(rest) >= 8; {
		size := int64(binary.LittleEndian.Uint32(rest[4:]))
		if size > int64(len(rest)-8) {
			return nil
		}
		if string(rest[:4]) == "EXIF" {
			return bytes.TrimPrefix(rest[8:8+size], []byte("Exif\x00\x00"))
		}
		rest = rest[min(int64(len(rest)), 8+size+size&1):]
	}
	return nil
}
