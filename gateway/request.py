"""The nouns every stage of the request path speaks.

`Request` and `Response` hold whole messages in memory, but for bodies that are large or slow: those are a `stream` and
`body` is empty. Header names are lower-case bytes, values are bytes as they came. An expected refusal is a `Response`,
never an exception.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple

from gateway.status import REASONS
from gateway.stream import Stream


class Outcome(enum.IntEnum):
    """What one attempt proved about the backend that served it (after concurrency-limits and gobreaker)."""

    SUCCESS = 0
    FAILURE = 1
    IGNORE = 2  # cancelled, or the client's own fault: proves nothing
    DROPPED = 3  # refused for overload, by us or by the backend


class BodyRules(NamedTuple):
    """What a route says of bodies, in bytes: up to `buffer` they are held whole (and may be sent twice), above it they
    stream; above `limit` they are refused. `upgrade` names the protocols (lower case) that may take over.
    """

    buffer: int
    limit: int
    upgrade: frozenset[bytes] = frozenset()


class Request:
    """One request, complete with its body, or with the `stream` in which the body comes.

    `headers` maps a lower-case name to its value; repeated fields are joined with a comma (RFC 9110 5.3).
    `path` is the normalised path the gateway decides on; `target` is what a backend is sent (path and query).
    `received` is monotonic nanoseconds at the moment the head was complete. `upgrade` is the protocol the client may
    switch to: then `stream` is everything it sends behind the head. `tenant` is whom the client belongs to. `peer`
    is the client's address; `via` are the forwarding fields as backends are sent them, whole lines. `named` is the
    model the route's captures name, `model` the one whose breaker the request passes at the pool that is being asked.
    """

    __slots__ = (
        "body",
        "client",
        "headers",
        "id",
        "keep_alive",
        "method",
        "minor",
        "model",
        "named",
        "path",
        "peer",
        "received",
        "stream",
        "target",
        "tenant",
        "upgrade",
        "via",
    )

    def __init__(
        self,
        method: bytes,
        target: bytes,
        path: bytes,
        headers: dict[bytes, bytes],
        body: bytes = b"",
        peer: bytes = b"",
        minor: int = 1,
        keep_alive: bool = True,
    ) -> None:
        self.method = method
        self.target = target
        self.path = path
        self.headers = headers
        self.body = body
        self.peer = peer
        self.minor = minor
        self.keep_alive = keep_alive
        self.received = 0
        self.client = b""
        self.tenant = b""
        self.id = b""
        self.stream: Stream | None = None
        self.upgrade = b""
        self.via = b""
        self.named = b""
        self.model = b""

    def cookie(self, name: bytes) -> bytes:
        """The value of the first cookie of that name (RFC 6265 section 4.2), or nothing."""
        cookies = self.headers.get(b"cookie")
        if cookies is not None:
            for pair in cookies.split(b";"):
                its, _, value = pair.partition(b"=")
                if its.strip() == name:
                    return value.strip()
        return b""

    def __repr__(self) -> str:
        return f"<Request {self.method.decode()} {self.target.decode('latin-1')} {len(self.body)} B>"


Header = tuple[bytes, bytes]


class Response:
    """One response, complete with its body or with the `stream` it comes in; `headers` excludes framing.

    Who writes a streaming response calls `on_end` once with the bytes sent and what went wrong, if anything did. Who
    gets one and does not pass it on calls `discard`: a stream that nobody reads waits for ever.
    """

    __slots__ = ("body", "close", "headers", "on_end", "status", "stream")

    def __init__(self, status: int, headers: list[Header], body: bytes = b"", *, close: bool = False) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.close = close
        self.stream: Stream | None = None
        self.on_end: Callable[[int, BaseException | None], None] | None = None

    def discard(self) -> None:
        """For an answer that will not be used: what it holds (its stream's connection and place) is given back."""
        if self.stream is not None:
            self.stream.abandon()

    def header(self, name: bytes) -> bytes | None:
        """The first value of `name` (lower-case), or None."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    def __repr__(self) -> str:
        return f"<Response {self.status} {REASONS.get(self.status, '')} {len(self.body)} B>"
