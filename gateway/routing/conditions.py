"""What a route may ask of header fields and query parameters. All conditions must hold.

Of a parameter that is repeated the first counts; names and values are compared after percent-decoding, with `+` as a
space. A repeated header field is one value, joined by commas (RFC 9110 section 5.3).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, Protocol
from urllib.parse import unquote_to_bytes

from gateway.request import Request
from gateway.routing.regex import Regex


class Test(Protocol):
    """A condition on one value; None: there is none."""

    def holds(self, value: bytes | None) -> bool: ...


class Present(NamedTuple):
    """The value is there, or (`wanted` False) is not."""

    wanted: bool

    def holds(self, value: bytes | None) -> bool:
        return (value is not None) == self.wanted


class Exact(NamedTuple):
    expected: bytes

    def holds(self, value: bytes | None) -> bool:
        return value == self.expected


class Prefix(NamedTuple):
    start: bytes

    def holds(self, value: bytes | None) -> bool:
        return value is not None and value.startswith(self.start)


class Matches(NamedTuple):
    regex: Regex

    def holds(self, value: bytes | None) -> bool:
        return value is not None and self.regex.matches(value)


class Conditions(NamedTuple):
    """By lower-case header name and by parameter name."""

    headers: tuple[tuple[bytes, Test], ...] = ()
    query: tuple[tuple[bytes, Test], ...] = ()

    def hold(self, request: Request) -> bool:
        headers = request.headers
        for name, test in self.headers:
            if not test.holds(headers.get(name)):
                return False
        if self.query:
            query = parameters(request.target)
            for name, test in self.query:
                if not test.holds(query.get(name)):
                    return False
        return True


@lru_cache(maxsize=16)  # routes that are tried one after the other for one request ask for the same
def parameters(target: bytes) -> dict[bytes, bytes]:
    """The query of a request target: each name's first value."""
    found: dict[bytes, bytes] = {}
    for pair in target.partition(b"?")[2].split(b"&"):
        name, _, value = pair.partition(b"=")
        if name:
            found.setdefault(_decoded(name), _decoded(value))
    return found


def _decoded(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b" ")) if b"%" in text or b"+" in text else text
