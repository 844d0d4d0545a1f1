"""A field that Connection names is not sent on, so no answer may be kept under it: one caller could spoil another's."""

from gateway.degrade.cache import KEYED, cache_key
from gateway.http.reader import ReadLimits, RequestReader

PLAIN = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n%s\r\n{}"


def read(fields: bytes):
    reader = RequestReader(ReadLimits())
    reader.feed(PLAIN % fields)
    return reader.ready[0]


def test_what_is_not_sent_on_is_not_keyed_on():
    plain = cache_key(b"route", read(b""))
    for name in set(KEYED) - {b"host", b"content-type", b"content-encoding"}:  # naming these is refused
        field = name + b": 1\r\n"
        assert cache_key(b"route", read(field)) != plain
        assert cache_key(b"route", read(b"Connection: " + name + b"\r\n" + field)) == plain
