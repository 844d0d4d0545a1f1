"""How urgent a request is: as its route says, or as it says itself, within what its client may claim.

A client may always make itself less urgent. Only the clients named may claim to be critical; for all others the route's
own priority is the most. What is no priority is ignored: the field may well be meant for somebody else.
"""

from __future__ import annotations

from typing import Final

from gateway.admission.queue import PRIORITIES
from gateway.request import Request

DEFAULT: Final = 1
BATCH: Final = 2

_WISHES: Final = {name.encode(): number for number, name in enumerate(PRIORITIES)}


class PriorityRules:
    """Of one route. `header` (lower case, empty: none) is what a request says of itself."""

    __slots__ = ("critical", "header", "own")

    def __init__(self, own: int = DEFAULT, header: bytes = b"", critical: frozenset[bytes] = frozenset()) -> None:
        self.own = own
        self.header = header
        self.critical = critical

    def of(self, request: Request) -> int:
        """An index of `PRIORITIES`."""
        if not self.header:
            return self.own
        wish = request.headers.get(self.header)
        if wish is None:
            return self.own
        wished = _WISHES.get(wish, self.own)
        return wished if wished >= self.own or request.client in self.critical else self.own
