"""An answer as HTTP/1.1 says it to a client: its head, and its body where that is whole.

Added: the date, the framing, and what becomes of the connection (RFC 9112 sections 6 and 9).
"""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import Final

from gateway.request import Request, Response
from gateway.status import STATUS_LINES

_NO_BODY: Final = frozenset((204, 304))
_LENGTHS: Final = tuple([b"content-length: %d\r\n" % length for length in range(4096)])


class DateLine:
    """The Date field line, made once a second."""

    __slots__ = ("_line", "_second")

    def __init__(self) -> None:
        self._second = 0
        self._line = b""

    def now(self) -> bytes:
        """The line as it is now."""
        second = int(time.time())
        if self._second != second:
            self._second = second
            self._line = f"date: {formatdate(second, usegmt=True)}\r\n".encode()
        return self._line


def response_bytes(response: Response, request: Request | None, date: DateLine, *, keep: bool, chunked: bool) -> bytes:
    """What to write of `response`. `date` is for one that has none; `keep`: the connection goes on; `chunked`:
    so will the body that streams be. Without a `request`: what came was none.
    """
    bodiless = response.status in _NO_BODY
    parts = [STATUS_LINES[response.status]]
    dated = False
    for name, value in response.headers:
        if name == b"date":
            dated = True
        parts += (name, b": ", value, b"\r\n")
    if not dated:
        parts.append(date.now())
    body = response.body
    if request is not None and request.method == b"HEAD":
        bodiless = True
        if body:  # else the backend alone knows the length of what it did not send
            parts.append(_content_length(len(body)))
    elif response.stream is not None:
        if chunked:
            parts.append(b"transfer-encoding: chunked\r\n")
        elif response.stream.length is not None:
            parts.append(_content_length(response.stream.length))
    elif not bodiless:
        parts.append(_content_length(len(body)))
    if response.status == 101 and request is not None:
        parts.append(b"connection: upgrade\r\nupgrade: %b\r\n" % request.upgrade)
    elif not keep:
        parts.append(b"connection: close\r\n")
    elif request is not None and request.minor == 0:
        parts.append(b"connection: keep-alive\r\n")
    parts.append(b"\r\n")
    if body and not bodiless:
        parts.append(body)
    return b"".join(parts)


def _content_length(length: int) -> bytes:
    return _LENGTHS[length] if length < 4096 else b"content-length: %d\r\n" % length
