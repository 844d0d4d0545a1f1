"""The PROXY protocol, versions 1 and 2: who is behind the proxy that made this connection.

Source: "The PROXY protocol", HAProxy Technologies, revision of 2020/03/05. Bytes in, one `Header` out, no I/O and no
clock. Invariants: the first byte decides between the versions and nothing is guessed; the same bytes mean the same
however they are cut; nothing behind the header is consumed (`rest` has it); the size is bounded.

Bounds: version 1 has 107 bytes at most, by its specification; version 2 may say up to 64 KiB, of which 4 KiB are taken
here (the addresses need 216, the rest is for extensions such as a client certificate's names).
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Final

from gateway.errors import GatewayError

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
MAX_V1: Final = 107
MAX_V2: Final = 4096

_HEAD: Final = struct.Struct("!12sBBH")
_EXTENSION: Final = struct.Struct("!BH")
#: size of the addresses by family: IPv4, IPv6, unix
_SIZES: Final[dict[int, int]] = {1: 12, 2: 36, 3: 216}
_CRC32C: Final = 3
_STREAM: Final = 1


class ProxyHeaderError(GatewayError):
    """The connection does not begin with an acceptable PROXY header; nothing may be answered to it."""


class Header:
    """What the proxy said. `address` is the client's in canonical text, "unix", or "" where the proxy speaks for itself
    (LOCAL, as health checks do) or does not know (UNKNOWN): the connection's own peer counts then.
    """

    __slots__ = ("address", "port")

    def __init__(self, address: bytes = b"", port: int = 0) -> None:
        self.address = address
        self.port = port

    def __repr__(self) -> str:
        return f"<Header {self.address.decode()}:{self.port}>"


class ProxyHeaderParser:
    """Feed it bytes until it returns the header. After a ProxyHeaderError it is dead, after a header it is done."""

    __slots__ = ("_seen", "rest")

    def __init__(self) -> None:
        self._seen = b""
        self.rest = b""  # what came after the header

    def feed(self, data: bytes) -> Header | None:
        """The header once it is whole, or None. Raises ProxyHeaderError as soon as the bytes cannot become one."""
        seen = self._seen = self._seen + data
        if not seen:
            return None
        if SIGNATURE.startswith(seen[:12]):
            return self._binary(seen)
        if b"PROXY ".startswith(seen[:6]):
            return self._text(seen)
        raise ProxyHeaderError("no PROXY header where this listener needs one")

    def _text(self, seen: bytes) -> Header | None:
        end = seen.find(b"\r\n", 0, MAX_V1)
        if end < 0:
            if len(seen) >= MAX_V1:
                raise ProxyHeaderError("the PROXY header is longer than 107 bytes")
            return None
        self.rest = seen[end + 2 :]
        words = seen[6:end].split(b" ")
        if words[0] == b"UNKNOWN":
            return Header()  # whatever else the line says is to be ignored
        if len(words) != 5 or words[0] not in (b"TCP4", b"TCP6"):
            raise ProxyHeaderError("malformed PROXY header: not 'TCP4|TCP6 source destination port port'")
        source, destination = _address(words[1]), _address(words[2])
        family = 4 if words[0] == b"TCP4" else 6
        if source.version != family or destination.version != family:
            raise ProxyHeaderError("malformed PROXY header: the addresses are not of the family it names")
        port = _port(words[3])
        _port(words[4])
        return Header(_canonical(source), port)

    def _binary(self, seen: bytes) -> Header | None:
        if len(seen) < 16:
            return None
        _, kind, family, length = _HEAD.unpack_from(seen)
        if kind not in (0x20, 0x21):
            raise ProxyHeaderError("malformed PROXY header: not version 2, or a command that is not known")
        if 16 + length > MAX_V2:
            raise ProxyHeaderError("the PROXY header is larger than 4 KiB")
        if len(seen) < 16 + length:
            return None
        self.rest = seen[16 + length :]
        content = seen[16 : 16 + length]
        size = _SIZES.get(family >> 4, 0)
        if kind == 0x20:
            return Header()  # LOCAL: the addresses are to be ignored, whatever they are
        if family >> 4 > 3 or family & 15 > 2:
            raise ProxyHeaderError("malformed PROXY header: an address family or transport that is not known")
        if length < size:
            raise ProxyHeaderError("malformed PROXY header: too short for its addresses")
        _check_extensions(seen[: 16 + length], 16 + size)
        if size == 0 or family & 15 != _STREAM:
            return Header()  # AF_UNSPEC, or not a connection: "the receiver should ignore address information"
        if size == 216:
            return Header(b"unix")
        width = 4 if size == 12 else 16
        address = ipaddress.ip_address(content[:width])
        return Header(_canonical(address), int.from_bytes(content[2 * width : 2 * width + 2], "big"))


def _check_extensions(header: bytes, at: int) -> None:
    """The extensions (TLVs) from `at` fill the header exactly, and its checksum, where it has one, is right."""
    while at < len(header):
        if at + 3 > len(header):
            raise ProxyHeaderError("malformed PROXY header: an extension is cut off")
        kind, size = _EXTENSION.unpack_from(header, at)
        at += 3 + size
        if at > len(header):
            raise ProxyHeaderError("malformed PROXY header: an extension is longer than the header")
        if kind == _CRC32C:
            if size != 4:
                raise ProxyHeaderError("malformed PROXY header: a checksum that has not four bytes")
            blank = header[: at - 4] + bytes(4) + header[at:]
            if crc32c(blank) != int.from_bytes(header[at - 4 : at], "big"):
                raise ProxyHeaderError("the PROXY header's checksum is wrong")


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), as section 2.2.4 of the specification asks for."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _address(text: bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        if b"%" in text:
            raise ValueError
        return ipaddress.ip_address(text.decode("ascii"))
    except ValueError:
        raise ProxyHeaderError("malformed PROXY header: not an address") from None


def _port(text: bytes) -> int:
    if not text.isdigit() or len(text) > 5 or (text[:1] == b"0" and text != b"0") or int(text) > 65535:
        raise ProxyHeaderError("malformed PROXY header: not a port")
    return int(text)


def _canonical(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bytes:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped).encode()
    return str(address).encode()
