"""Bodies of requests on one link, sent as far as the backend's credit goes. Contract: `docs/link.md`, flow control.

Invariants: no more is sent than credit was given for, on the exchange and on the connection; of the bodies that did not
fit, a piece of each goes in turn, so that a large one holds up nobody.
"""

from __future__ import annotations

from collections import deque

from gateway.errors import LinkViolation
from gateway.link import encoder
from gateway.link.exchange import Exchange
from gateway.link.frames import CHUNK, E_FLOW, MAX_WINDOW, Settings


class Uploads:
    """Of one link, whose other end allows `theirs`."""

    __slots__ = ("_at_once", "_credit", "_stream_window", "_waiting")

    def __init__(self, theirs: Settings) -> None:
        self._waiting: deque[Exchange] = deque()
        self._stream_window = theirs.stream_window
        self._at_once = min(CHUNK, theirs.stream_window)  # most bytes of body in a REQUEST
        self._credit = theirs.connection_window  # bytes of body the backend takes before it grants more

    def fits(self, size: int) -> bool:
        """Whether a body of this size goes with its REQUEST."""
        return not size or (size <= self._at_once and size <= self._credit and not self._waiting)

    def spend(self, size: int) -> None:
        """It went."""
        self._credit -= size

    def add(self, exchange: Exchange, body: bytes) -> None:
        """Has `body` follow in pieces."""
        exchange.body = body
        exchange.credit = self._stream_window
        self._waiting.append(exchange)

    def grant(self, exchange: Exchange | None, credit: int) -> None:
        """The backend takes `credit` more bytes, of one exchange or on the connection (None)."""
        if exchange is not None:
            exchange.credit += credit
            total = exchange.credit
        else:
            self._credit += credit
            total = self._credit
        if total > MAX_WINDOW:
            raise LinkViolation(E_FLOW, "more credit than can be")

    def pump(self, streams: dict[int, Exchange]) -> list[bytes]:
        """The DATA that credit allows now; what is not wanted, or not in `streams`, any more is passed over."""
        said: list[bytes] = []
        waiting = self._waiting
        stuck = 0
        while waiting and stuck < len(waiting):
            exchange = waiting.popleft()
            if not exchange.wanted or exchange.number not in streams:
                continue
            left = len(exchange.body) - exchange.sent
            size = min(left, CHUNK, exchange.credit, self._credit)
            if size == 0 and left:
                waiting.append(exchange)
                stuck += 1
                continue
            stuck = 0
            end = size == left
            piece = exchange.body[exchange.sent : exchange.sent + size]
            exchange.sent += size
            exchange.credit -= size
            self._credit -= size
            said.append(encoder.data_start(exchange.number, size, end=end) + piece)
            if not end:
                waiting.append(exchange)
            else:
                exchange.body = b""
        return said

    def clear(self) -> None:
        """The link is lost."""
        self._waiting.clear()
