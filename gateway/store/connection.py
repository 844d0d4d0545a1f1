"""One pipelined connection to Redis/Valkey, for the per-request path (hiredis on an asyncio.Protocol).

Invariants: commands are answered in the order they were sent (FIFO); no request ever cancels a command, so one
reply can never be taken for another's (the fault of redis-py issues 2624 and 2665); when the connection breaks,
or its oldest command is older than the deadline, every waiting command is failed at once. Whether the connection is
kept then says `on_late`; late replies on it are told to those who want to hear of them, as nobody waits any more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import hiredis

from gateway.errors import StoreError

ROUND: Final = 0.002  # seconds in which a busy loop may read what has already come
LAG: Final = 0.005  # seconds a timer may be late before the loop, and not the store, is suspected
LONG_ROUND: Final = 0.01

Reply = Callable[[Any], None]


class StoreConnection:
    """`on_reply(reply)` is called once per command; a failure is passed as an exception object. `too_late(reply)` is
    called after that, if the reply was overdue and comes all the same.

    `on_late(connection)` is asked after a deadline was missed, when everybody who waited has been told: whether to keep
    the connection; without it that is dropped. `pushed` gets what the server says unasked (RESP3 pushes: messages of
    pub/sub); without it that breaks the protocol.
    """

    def __init__(
        self,
        deadline: float,
        on_lost: Callable[[StoreConnection], None],
        pushed: Callable[[Any], None] | None = None,
        on_late: Callable[[StoreConnection], bool] | None = None,
    ) -> None:
        self._deadline = deadline
        self._on_lost = on_lost
        self._on_late = on_late
        self._pushed = pushed
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._waiting: deque[tuple[float, Reply, Reply | None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._answered = 0
        self._late: deque[Reply | None] = deque()  # for replies that nobody waits for any more
        self.lost = False

    @property
    def answered(self) -> int:
        """Replies that came, in time or late."""
        return self._answered

    @property
    def waiting(self) -> int:
        """Commands sent and not answered."""
        return len(self._waiting)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def send(self, command: bytes, on_reply: Reply, too_late: Reply | None = None) -> None:
        """Queues one packed command. On a lost connection it fails, soon and not within this call."""
        if self.lost:
            self._loop.call_soon(on_reply, StoreError("the connection is lost"))
            return
        assert self._transport is not None
        self._waiting.append((self._loop.time() + self._deadline, on_reply, too_late))
        if self._timer is None:
            self._timer = self._loop.call_later(self._deadline, self._look)
        self._transport.write(command)

    def write(self, command: bytes) -> None:
        """One packed command that is answered by pushes alone, as SUBSCRIBE is."""
        if not self.lost:
            assert self._transport is not None
            self._transport.write(command)

    async def call(self, *words: str | bytes | int) -> Any:
        """One command, awaited. For set-up, never for a request."""
        future: asyncio.Future[Any] = self._loop.create_future()

        def reply(value: Any) -> None:
            if not future.done():
                future.set_result(value)

        self.send(hiredis.pack_command(words), reply)  # type: ignore[arg-type]  # the stub says 1-tuple
        value = await future
        if isinstance(value, Exception):
            raise StoreError(str(value)) from None
        return value

    def data_received(self, data: bytes) -> None:
        reader, waiting = self._reader, self._waiting
        reader.feed(data)
        try:
            while not self.lost and (reply := reader.gets()) is not False:
                if self._pushed is not None and isinstance(reply, hiredis.PushNotification):
                    self._pushed(reply)
                    continue
                if self._late:
                    self._answered += 1
                    too_late = self._late.popleft()
                    if too_late is not None:
                        too_late(reply)
                    continue
                if not waiting:
                    raise hiredis.ProtocolError("a reply nobody asked for")
                self._answered += 1
                waiting.popleft()[1](reply)
        except hiredis.ProtocolError as error:
            self.drop(StoreError(f"the store speaks nonsense: {error}"))

    def eof_received(self) -> None:
        """Returning None closes the transport."""

    def pause_writing(self) -> None:
        """The deadline of the oldest command bounds what can gather in the transport."""

    def resume_writing(self) -> None:
        """See `pause_writing`."""

    def connection_lost(self, exc: Exception | None) -> None:
        self.drop(StoreError("the store closed the connection"))

    def _look(self) -> None:
        """Is the oldest command overdue? Then what has already come is read in one more round of the loop. Where this
        timer itself is late, so was perhaps the command, and the round is longer.
        """
        self._timer = None
        if not self._waiting:
            return
        over = self._loop.time() - self._waiting[0][0]
        if over < 0:
            self._timer = self._loop.call_later(-over, self._look)
        else:
            self._timer = self._loop.call_later(ROUND if over < LAG else LONG_ROUND, self._give_up, self._answered)

    def _give_up(self, answered: int) -> None:
        self._timer = None
        if not self._waiting or self._answered != answered:
            self._look()
            return
        error = StoreError(f"no reply within {self._deadline * 1e3:.0f} ms")
        waiting, self._waiting = self._waiting, deque()
        self._late.extend([too_late for _, _, too_late in waiting])
        for _, reply, _ in waiting:
            reply(error)
        if not self.lost and (self._on_late is None or not self._on_late(self)):
            self.drop(error)

    def drop(self, error: StoreError) -> None:
        """Fails everything that waits and closes. Safe to call twice."""
        if self.lost:
            return
        self.lost = True
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        waiting, self._waiting = self._waiting, deque()
        self._late.clear()
        for _, reply, _ in waiting:
            reply(error)
        self._on_lost(self)
