"""A body on its way: bytes from one connection to another, bounded, with back-pressure and an end that is told once.

The producer (a connection's parser) calls `feed`, then `end` or `fail`; the consumer awaits `read` until b"", or calls
`abandon`. Above `high` waiting bytes the producer is told to pause, and to go on once the consumer has taken them; a
producer that ends while it is paused lets its socket go on by itself.
Invariants: no byte is lost or said twice; `read` never returns b"" before the end; whoever must know how it went
(pool, breaker, access log) hears of it once, from `ended`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from gateway.errors import GatewayError

if TYPE_CHECKING:  # the loop is given: the commands that know this noun start without asyncio
    import asyncio

HIGH: Final = 256 * 1024  # bytes that may wait before the producer is paused


class Abandoned(GatewayError):
    """The consumer wants no more: its own peer has gone, or it has heard enough."""


class Stream:
    """`pause` and `go_on` act on the producer's socket; `wanted` is called when the consumer first reads.

    `length` is the stated length in bytes, None where unknown.
    """

    __slots__ = (
        "_chunks", "_ended", "_error", "_go_on", "_listeners", "_loop", "_pause", "_paused", "_waiter", "_waiting",
        "_wanted", "high", "length", "total",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pause: Callable[[], None],
        go_on: Callable[[], None],
        length: int | None = None,
        high: int = HIGH,
        wanted: Callable[[], None] | None = None,
    ) -> None:
        self.length = length
        self.high = high
        self.total = 0  # bytes fed so far
        self._loop = loop
        self._pause = pause
        self._go_on = go_on
        self._wanted = wanted
        self._chunks: list[bytes] = []
        self._waiting = 0  # bytes fed and not read
        self._paused = False
        self._ended = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._listeners: list[Callable[[Exception | None], None]] = []

    @property
    def done(self) -> bool:
        """Whether nothing more will be fed."""
        return self._ended

    @property
    def paused(self) -> bool:
        """Whether the producer has been told to wait for the consumer."""
        return self._paused

    def then(self, listener: Callable[[Exception | None], None]) -> None:
        """Calls `listener` once, at once if it is over: with None after the last byte, or with what went wrong."""
        if self._ended:
            listener(self._error)
        else:
            self._listeners.append(listener)

    # -- the producer -------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Takes bytes; after the end they are dropped (a consumer that abandoned does not want them)."""
        if self._ended or not data:
            return
        self.total += len(data)
        self._chunks.append(data)
        self._waiting += len(data)
        if self._waiting > self.high and not self._paused:
            self._paused = True
            self._pause()
        self._wake()

    def end(self) -> None:
        """Says that all bytes were fed."""
        self._finish(None)

    def fail(self, error: Exception) -> None:
        """Says that no more will come although more was due; the consumer gets the error after what was fed."""
        self._finish(error)

    def _finish(self, error: Exception | None) -> None:
        if self._ended:
            return
        self._ended = True
        self._error = error
        listeners, self._listeners = self._listeners, []
        self._wake()
        for listener in listeners:
            listener(error)

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # -- the consumer -------------------------------------------------------------------------------------------

    async def read(self) -> bytes:
        """All bytes that wait, as soon as there are any; b"" at the end. Raises what the producer failed with."""
        wanted, self._wanted = self._wanted, None
        if wanted is not None:
            wanted()
        while not self._chunks:
            if self._ended:
                if self._error is not None:
                    raise self._error
                return b""
            self._waiter = self._loop.create_future()
            await self._waiter
        chunks, self._chunks = self._chunks, []
        self._waiting = 0
        if self._paused:
            self._paused = False
            if not self._ended:
                self._go_on()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def abandon(self) -> None:
        """The consumer stops: what waits is dropped and the producer hears of it through `then`."""
        self._chunks = []
        self._waiting = 0
        self._finish(Abandoned("the consumer has gone"))

    def __repr__(self) -> str:
        state = "ended" if self._ended else "paused" if self._paused else "open"
        return f"<Stream {state}, {self.total} bytes, {self._waiting} waiting>"
