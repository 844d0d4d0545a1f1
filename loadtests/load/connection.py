"""One HTTP/1.1 client connection that carries one request at a time and says exactly how it ended.

Contract: ``send`` is called on an idle connection only. Every exchange ends exactly once, through ``on_end``;
afterwards the connection is either idle (``reusable``) or closed. Which failure it was depends on two facts alone:
whether the connection had carried a request before, and whether a byte of this response had come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import httptools

from loadtests.load.model import Outcome, Request, Response


class Exchange:
    """A request under way: when it was due and written, and what came back. Times are ``time.monotonic`` seconds."""

    __slots__ = ("body", "due", "headers", "request", "sent", "status", "timeout", "wire")

    def __init__(self, request: Request, wire: bytes, due: float) -> None:
        self.request = request
        self.wire = wire
        self.due = due
        self.sent = due
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body: list[bytes] = []
        self.timeout: asyncio.TimerHandle | None = None

    @property
    def response(self) -> Response:
        """What a check is shown."""
        return Response(self.status, self.headers, b"".join(self.body))


OnEnd = Callable[["Connection", Exchange, Outcome], None]


class Connection(asyncio.Protocol):
    """See the module. ``on_closed`` is told once, after any exchange has ended."""

    def __init__(self, on_end: OnEnd, on_closed: Callable[[Connection], None]) -> None:
        self._on_end = on_end
        self._on_closed = on_closed
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._exchange: Exchange | None = None
        self._answering = False
        self._until_close = False
        self._used = 0

    @property
    def reusable(self) -> bool:
        """Open, and nothing under way."""
        return self._transport is not None and self._exchange is None and not self._transport.is_closing()

    def send(self, exchange: Exchange) -> None:
        """Write a request."""
        if self._exchange is not None or self._transport is None:
            raise RuntimeError("the connection is not idle")
        self._exchange = exchange
        self._answering = False
        self._until_close = False
        self._used += 1
        self._transport.write(exchange.wire)

    def abort(self, outcome: Outcome) -> None:
        """End what is under way with ``outcome`` and drop the connection."""
        self._end(outcome)
        self.close()

    def close(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._exchange is None:
            self.close()  # bytes nobody asked for
            return
        self._answering = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.abort(Outcome.MALFORMED)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._until_close and exc is None:
            self._end(Outcome.OK)
        elif self._answering:
            self._end(Outcome.TRUNCATED)
        else:
            self._end(Outcome.STALE_CONNECTION if self._used > 1 else Outcome.RESET)
        self._transport = None
        self._on_closed(self)

    # httptools

    def on_message_begin(self) -> None:
        if self._exchange is not None:
            self._exchange.headers = {}
            self._exchange.body = []

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._exchange is not None:
            self._exchange.headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        exchange.status = self._parser.get_status_code()
        framed = "content-length" in exchange.headers or "transfer-encoding" in exchange.headers
        self._until_close = not framed and exchange.status >= 200 and exchange.status not in (204, 304)

    def on_body(self, data: bytes) -> None:
        if self._exchange is not None:
            self._exchange.body.append(data)

    def on_message_complete(self) -> None:
        if self._exchange is None or self._exchange.status < 200:
            return  # 1xx: the real answer is still to come
        if not self._parser.should_keep_alive():
            self.close()
        self._end(Outcome.OK)

    def _end(self, outcome: Outcome) -> None:
        exchange, self._exchange = self._exchange, None
        self._answering = False
        self._until_close = False
        if exchange is not None:
            self._on_end(self, exchange, outcome)
