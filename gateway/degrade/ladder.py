"""The degrade ladder: what is tried, in order, when a route's own pool cannot answer.

    stale -> a smaller model's pool -> a static answer -> 503

A ladder is data; `pipeline` walks it. Whoever is served from a rung is told so by the `Degraded` header, whose
value is made here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.paths import Prefixes, replace_prefix
from gateway.request import Request, Response


@dataclass(frozen=True, slots=True)
class StaleRung:
    """The last good answer to the same question."""

    label: str = "stale"

    @staticmethod
    def says(age_s: int) -> bytes:
        return b"stale;age=%d" % age_s


@dataclass(frozen=True, slots=True)
class PoolRung:
    """Another pool, usually a smaller model. `timeout` in seconds; None: what is left of the request's time."""

    pool: str
    rewrite: Prefixes = ()
    timeout: float | None = None

    @property
    def label(self) -> str:
        return f"pool:{self.pool}"

    def says(self) -> bytes:
        return b"fallback;pool=" + self.pool.encode()

    def target(self, request: Request) -> bytes:
        """The request target with the first matching prefix replaced."""
        return replace_prefix(request.target, self.rewrite)


@dataclass(frozen=True, slots=True)
class StaticRung:
    """A prepared answer."""

    status: int
    content_type: bytes
    content: bytes
    label: str = "static"

    @staticmethod
    def says() -> bytes:
        return b"static"

    def response(self) -> Response:
        return Response(self.status, [(b"content-type", self.content_type)], self.content)


Rung = StaleRung | PoolRung | StaticRung
