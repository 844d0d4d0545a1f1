"""The nouns of a load: who sends what, and every way a request can end.

Contract: plain frozen values; nothing here does I/O. Times are seconds. A ``Client`` is *open loop* when it has a
``rate`` (requests are sent when they are due, whatever became of the earlier ones) and *closed loop* when it has
``connections`` (each sends its next request when it has the answer to the last).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal


class Outcome(StrEnum):
    """How a request ended; the status is counted apart, so a 503 that arrived whole is ``OK`` here."""

    OK = "ok"
    """A whole, well-formed response (and the check, if there is one, agreed)."""
    WRONG = "wrong"
    """A whole response of which the client's check said no."""
    CONNECT_REFUSED = "connect-refused"
    CONNECT_FAILED = "connect-failed"
    """No connection for another reason than a refusal."""
    RESET = "reset"
    """A fresh connection died after the request was sent and before any byte of a response."""
    STALE_CONNECTION = "stale-connection"
    """The same on a reused keep-alive connection. A client may retry that (RFC 9112, 9.3.1); here it is counted."""
    TRUNCATED = "truncated"
    """The connection died inside a response."""
    MALFORMED = "malformed"
    """What came back is no HTTP response."""
    TIMEOUT = "timeout"
    """No whole response within the client's timeout, counted from the intended send time."""
    UNSENT = "unsent"
    """Due, but the client already had ``max_in_flight`` requests waiting."""
    ABANDONED = "abandoned"
    """Still waiting when the load was ended."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request to send; ``tag`` is the caller's own, for its check."""

    method: str = "GET"
    path: str = "/"
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    tag: object = None


@dataclass(frozen=True, slots=True)
class Response:
    """A whole response as a check sees it; header names in lower case, the first of a repeated one."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Check = Callable[[Request, Response], bool]
"""Says whether the answer is right; an exception counts as no."""


@dataclass(frozen=True, slots=True)
class Client:
    """One named caller: its requests (sent in turn), its pace and its patience."""

    name: str = "client"
    rate: float | None = None
    """Arrivals per second, open loop; 0 waits for ``Load.set_rate``."""
    connections: int | None = None
    """Closed loop with this many connections."""
    requests: Sequence[Request] = (Request(),)
    headers: Mapping[str, str] = field(default_factory=dict)
    check: Check | None = None
    arrivals: Literal["poisson", "constant"] = "poisson"
    timeout: float = 10.0
    max_in_flight: int = 1024
    keep_alive: bool = True
    seed: int = 1

    def __post_init__(self) -> None:
        if (self.rate is None) == (self.connections is None):
            raise ValueError(f"client {self.name!r}: give either rate (open loop) or connections (closed loop)")
        if not self.requests:
            raise ValueError(f"client {self.name!r}: no requests")
        if any(request.method == "HEAD" for request in self.requests):
            raise ValueError(f"client {self.name!r}: HEAD is not supported")
        if self.timeout <= 0 or self.max_in_flight < 1 or (self.rate or 0) < 0 or (self.connections or 1) < 1:
            raise ValueError(f"client {self.name!r}: timeout, max_in_flight, rate or connections out of range")


def render(request: Request, client: Client, host: str) -> bytes:
    """The bytes of a request on the wire, HTTP/1.1."""
    fields = {"host": host, **_lower(client.headers), **_lower(request.headers)}
    if request.body or request.method in ("POST", "PUT", "PATCH"):
        fields.setdefault("content-length", str(len(request.body)))
    if not client.keep_alive:
        fields["connection"] = "close"
    lines = [f"{request.method} {request.path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + request.body


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
