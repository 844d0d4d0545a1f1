"""Dividing a route's requests between pools: canary releases, A/B tests.

With a key the same caller always comes to the same side, in every worker and gateway, after every reload: weighted
rendezvous hashing (Thaler & Ravishankar 1998; weights after Schindelhauer & Schomaker 2005). Each side has a number
drawn from hash(side, key) and its weight, and the largest wins. When weights change, only callers who must move do:
from 95:5 to 90:10 a twentieth of all moves, every one of them to the side that gained. The side's name is its pool, so
a caller is on the same side of every route that splits between the same pools.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

from gateway.request import Request

R = TypeVar("R")

_SPAN: Final = float(1 << 64)


class Sticky(NamedTuple):
    """What a caller is recognised by: a header field, a cookie, or (neither) the client, by address if anonymous."""

    header: bytes = b""
    cookie: bytes = b""

    def key(self, request: Request) -> bytes:
        """Empty if the request has none."""
        if self.header:
            return request.headers.get(self.header, b"")
        if self.cookie:
            return request.cookie(self.cookie)
        return request.client or request.peer


class Side(NamedTuple, Generic[R]):
    """`weight` is relative to the other sides; 0 takes the side out."""

    name: str
    weight: int
    route: R


class Split(Generic[R]):
    """At least one side has weight."""

    def __init__(self, sides: Sequence[Side[R]], sticky: Sticky | None = None) -> None:
        self.sides = tuple(sides)
        self.sticky = sticky
        self._total = sum(side.weight for side in sides)
        self._hashed = [
            (hashlib.blake2b(side.name.encode() + b"\0", digest_size=8), float(side.weight), side.route)
            for side in sides
            if side.weight
        ]

    def side(self, request: Request, draw: Callable[[], float]) -> R:
        """The side of a request. `draw` returns a float in [0, 1), for requests without a key."""
        if self.sticky is not None:
            key = self.sticky.key(request)
            if key:
                return self._keyed(key)
        at = draw() * self._total
        for _, weight, route in self._hashed:
            at -= weight
            if at < 0:
                return route
        return self._hashed[-1][2]

    def _keyed(self, key: bytes) -> R:
        best, chosen = -1.0, self._hashed[0][2]
        for base, weight, route in self._hashed:
            hashed = base.copy()
            hashed.update(key)
            drawn = (int.from_bytes(hashed.digest(), "big") + 0.5) / _SPAN
            score = weight / -math.log(drawn) if drawn < 1.0 else math.inf
            if score > best:
                best, chosen = score, route
        return chosen
