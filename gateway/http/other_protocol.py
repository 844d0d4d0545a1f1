"""Other protocols: RTSP, which llhttp reads as if it were HTTP (its requests look the same but for the name), and those
that it refuses, in words that help nobody: how they are told.

A pure machine, as the reader that uses it. Only a request line can speak RTSP: the same bytes in a body, or in a field,
mean nothing.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.errors import ProtocolError

SPOKEN: Final = b" RTSP/"  # llhttp reads it as it reads "HTTP/"
_TARGET: Final = re.compile(rb" ([^ \r\n]+) +RTSP/")  # llhttp skips any number of spaces


def targets(data: bytes) -> frozenset[bytes]:
    """Whom the lines in `data` speak RTSP to."""
    return frozenset(_TARGET.findall(data)) if SPOKEN in data else frozenset()


def refusal() -> ProtocolError:
    """What to raise where it is spoken."""
    return ProtocolError("malformed request in the request line: RTSP is not spoken here; use HTTP/1.1", 505)


_PREFACE: Final = frozenset(("Expected HTTP/2 Connection Preface", "Pause on PRI/Upgrade"))
_HANDSHAKE: Final = b"\x16\x03"  # how a record of TLS with a ClientHello begins (RFC 8446 section 5.1)


def refused(what: str, start: bytes) -> ProtocolError | None:
    """What to raise where llhttp refuses, with `what`, a connection's or a request's `start`. None: nothing known."""
    if what in _PREFACE:  # RFC 9113 section 3.4
        return ProtocolError("HTTP/2 (and with it gRPC) is not spoken here; use HTTP/1.1", 505)
    if start.startswith(_HANDSHAKE):
        return ProtocolError("TLS is not spoken on this port; use http:// instead of https://, or the port with TLS")
    return None


class OpenLine:
    """A request line of which the end is still to come; `data` ends with what there is of it."""

    __slots__ = ("_end",)

    def __init__(self, data: bytes) -> None:
        self._end = data[-len(SPOKEN) :]

    def follow(self, data: bytes) -> bool:
        """Takes the next bytes; returns whether the line goes on behind them. Raises ProtocolError if it is RTSP's."""
        end = data.find(b"\n")
        line = self._end + (data if end < 0 else data[:end])
        if SPOKEN in line:
            raise refusal()
        self._end = line[-len(SPOKEN) :]
        return end < 0


def open_line(data: bytes, *, fresh: bool) -> OpenLine | None:
    """The request line that `data`, which left a head unfinished, may end in: what follows may make it RTSP's. Where it
    cannot be told, because the head began somewhere behind another request, it counts as such. `fresh`: `data` began
    with a request.
    """
    started = data.lstrip(b"\r\n")
    if not fresh or b"\n" not in started or b"\r\n\r\n" in started:
        return OpenLine(data)
    return None
