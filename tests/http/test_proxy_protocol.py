"""The PROXY protocol: what is understood, however it is cut, and that nothing else is."""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.proxy_protocol import MAX_V1, SIGNATURE, ProxyHeaderError, ProxyHeaderParser, crc32c

V4 = bytes([192, 0, 2, 1, 10, 0, 0, 1]) + struct.pack("!HH", 56324, 443)
V6 = ipaddress.ip_address("2001:db8::1").packed + ipaddress.ip_address("::1").packed + struct.pack("!HH", 56324, 443)


def v2(content: bytes, family: int = 0x11, command: int = 0x21, length: int | None = None) -> bytes:
    size = len(content) if length is None else length
    return SIGNATURE + struct.pack("!BBH", command, family, size) + content


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def with_checksum(content: bytes) -> bytes:
    blank = v2(content + tlv(3, bytes(4)))
    return blank[:-4] + struct.pack("!I", crc32c(blank))


UNDERSTOOD = {
    b"PROXY TCP4 192.0.2.1 10.0.0.1 56324 443\r\n": (b"192.0.2.1", 56324),
    b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n": (b"255.255.255.255", 65535),
    b"PROXY TCP6 2001:DB8:0::1 ::1 0 443\r\n": (b"2001:db8::1", 0),
    b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 443\r\n": (b"192.0.2.1", 1),
    b"PROXY UNKNOWN\r\n": (b"", 0),
    b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n": (b"", 0),
    v2(V4): (b"192.0.2.1", 56324),
    v2(V6, 0x21): (b"2001:db8::1", 56324),
    v2(b"/a".ljust(108, b"\0") + b"/b".ljust(108, b"\0"), 0x31): (b"unix", 0),
    v2(b"", 0x00, 0x20): (b"", 0),  # LOCAL
    v2(V4, 0x11, 0x20): (b"", 0),  # LOCAL with addresses, which do not count
    v2(b"", 0x00): (b"", 0),  # PROXY, unspecified
    v2(V4, 0x12): (b"", 0),  # datagrams are no connection
    v2(V4 + tlv(1, b"http/1.1") + tlv(0x20, b"x" * 900) + tlv(4, b"")): (b"192.0.2.1", 56324),
    with_checksum(V4): (b"192.0.2.1", 56324),
}

REFUSED = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"proxy TCP4 192.0.2.1 10.0.0.1 1 2\r\n",
    b"PROXY  TCP4 192.0.2.1 10.0.0.1 1 2\r\n",
    b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2 \r\n",
    b"PROXY TCP4 192.0.2.1 10.0.0.1 1\r\n",
    b"PROXY TCP4 192.0.2.1 10.0.0.1 1 65536\r\n",
    b"PROXY TCP4 192.0.2.1 10.0.0.1 +1 2\r\n",
    b"PROXY TCP4 192.0.2.1 10.0.0.1 01 2\r\n",
    b"PROXY TCP4 192.0.2.01 10.0.0.1 1 2\r\n",
    b"PROXY TCP4 192.0.2 10.0.0.1 1 2\r\n",
    b"PROXY TCP4 ::1 ::1 1 2\r\n",
    b"PROXY TCP4 192.0.2.1 ::1 1 2\r\n",
    b"PROXY TCP6 192.0.2.1 10.0.0.1 1 2\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
    b"PROXY TCP5 192.0.2.1 10.0.0.1 1 2\r\n",
    b"PROXY \r\n",
    b"PROXY UNKNOWN" + b"x" * MAX_V1,
    b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2\n" + b"x" * MAX_V1,
    SIGNATURE[:-1] + b"\r",
    v2(V4, command=0x11),
    v2(V4, command=0x22),
    v2(V4, 0x41),
    v2(V4, 0x13),
    v2(V4[:-1]),
    v2(V4, 0x21),
    v2(V4 + b"\1"),
    v2(V4 + b"\1\0\5abcd"),
    v2(V4, length=65535),
    v2(V4 + tlv(3, b"abc")),
    v2(V4 + tlv(3, b"abcd")),
]


@pytest.mark.parametrize("data", UNDERSTOOD, ids=repr)
def test_understood_however_it_is_cut(data):
    for cut in range(1, len(data) + 1):
        parser = ProxyHeaderParser()
        header = parser.feed(data[:cut])
        if cut < len(data):
            assert header is None
            header = parser.feed(data[cut:] + b"GET /")
            assert parser.rest == b"GET /"
        assert header is not None
        assert (header.address, header.port) == UNDERSTOOD[data]
    parser = ProxyHeaderParser()
    assert [parser.feed(data[at : at + 1]) for at in range(len(data) - 1)] == [None] * (len(data) - 1)
    assert parser.feed(data[-1:]) is not None


@pytest.mark.parametrize("data", REFUSED, ids=repr)
def test_refused_however_it_is_cut(data):
    for step in (1, 2, 3, 5, len(data)):
        parser = ProxyHeaderParser()
        with pytest.raises(ProxyHeaderError):
            assert all(parser.feed(data[at : at + step]) is None for at in range(0, len(data), step))


def test_what_cannot_become_a_header_is_refused_at_its_first_byte():
    for byte in range(256):
        parser = ProxyHeaderParser()
        if byte in b"P\r":
            assert parser.feed(bytes([byte])) is None
        else:
            with pytest.raises(ProxyHeaderError):
                parser.feed(bytes([byte]))


def test_the_checksum_is_castagnolis():
    assert crc32c(b"123456789") == 0xE3069283
    whole = with_checksum(V4)
    for at in {*range(16, len(whole))} - {len(whole) - 7}:  # that byte says that it is a checksum
        broken = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        with pytest.raises(ProxyHeaderError):
            ProxyHeaderParser().feed(broken)


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_the_same_bytes_mean_the_same(data, cuts):
    for start in (b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11\0\x0c"):
        assert read(start + data, []) == read(start + data, cuts)


@given(st.sampled_from(sorted(UNDERSTOOD)), st.randoms(use_true_random=False))
def test_a_mutation_is_a_header_or_an_error_and_nothing_else(data, chance: random.Random):
    mutated = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        mutated[chance.randrange(len(mutated))] = chance.randrange(256)
    parser = ProxyHeaderParser()
    with contextlib.suppress(ProxyHeaderError):
        header = parser.feed(bytes(mutated))
        if header is not None and header.address not in (b"", b"unix"):
            assert str(ipaddress.ip_address(header.address.decode())).encode() == header.address


def read(data: bytes, cuts: list[int]) -> object:
    parser = ProxyHeaderParser()
    marks = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for begin, end in itertools.pairwise(marks):
        try:
            header = parser.feed(data[begin:end])
        except ProxyHeaderError:
            return "refused"
        if header is not None:
            return header.address, header.port, parser.rest + data[end:]
    return "unfinished"
