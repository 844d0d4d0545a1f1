"""Which route a request takes. Compiled once per snapshot; the first route in the file that matches wins.

Exact paths are a dictionary look-up; prefixes are one dictionary look-up per distinct prefix *length*, so the cost
does not grow with the number of routes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, NamedTuple, Protocol, TypeVar

from gateway.request import Request


class Matched(Protocol):
    """What the table must know about a route."""

    @property
    def match(self) -> Match: ...


R = TypeVar("R", bound=Matched)
_Table = dict[bytes, list[tuple[int, R]]]


class Match(NamedTuple):
    """`path` without the star; `host` in lower case without port; empty means any."""

    path: bytes
    prefix: bool
    methods: frozenset[bytes] = frozenset()
    host: bytes = b""


class RouteTable(Generic[R]):
    """`find` returns the first route in the file that matches, or None; `allowed` then says which methods exist."""

    def __init__(self, routes: Iterable[R]) -> None:
        self._exact: _Table[R] = {}
        by_length: dict[int, _Table[R]] = {}
        for order, route in enumerate(routes):
            match = route.match
            table = by_length.setdefault(len(match.path), {}) if match.prefix else self._exact
            table.setdefault(match.path, []).append((order, route))
        self._prefixes = sorted(by_length.items())

    def find(self, request: Request) -> R | None:
        best: tuple[int, R] | None = None
        for candidates in self._having(request.path):
            for candidate in candidates:
                if best is not None and candidate[0] > best[0]:
                    break
                if _takes(candidate[1].match, request):
                    best = candidate
                    break
        return None if best is None else best[1]

    def allowed(self, request: Request) -> frozenset[bytes]:
        """The methods that some route has for this path; empty when no route has the path."""
        return frozenset(
            method
            for candidates in self._having(request.path)
            for _, route in candidates
            if not route.match.host or route.match.host == _host(request)
            for method in route.match.methods
        )

    def _having(self, path: bytes) -> Iterator[list[tuple[int, R]]]:
        exact = self._exact.get(path)
        if exact is not None:
            yield exact
        for length, table in self._prefixes:
            found = table.get(path[:length])
            if found is not None:
                yield found


def _takes(match: Match, request: Request) -> bool:
    if match.methods and request.method not in match.methods:
        return False
    return not match.host or _host(request) == match.host


def _host(request: Request) -> bytes:
    host = request.headers.get(b"host", b"").lower()
    name, colon, port = host.rpartition(b":")
    return name if colon and port.isdigit() else host
