"""What a task awaits, and is stepped by in the very event that brings it.

An `asyncio.Future` has its task stepped in the loop's next turn: a handle and another look at all sockets for each
thing that a request waits for. A `Promise` does that, too (`keep`), but whoever knows that nothing of its own is half
done says `keep_now`, as the last act of a `data_received`, and the task runs within that call. Where another task is
running, as in a test that plays the transport, that is put off to the next turn: a task cannot run inside another.

At once is sooner, and cheaper where requests come alone. Where they come in company the turn between is a gain: more of
them share a call of the store, and each step is taken by many while its code is warm. So whoever keeps a promise does
it at once only while no more than `FEW` are about, or `FEWEST` where less than all can be seen.

Invariants: kept, broken or cancelled once; its callbacks are called once, in their own context. To asyncio it is a
future by what `asyncio.isfuture` and a task ask of one (PEP 3156; `_asyncio_future_blocking` since Python 3.5.3), and
no more: it is for a coroutine to await. `asyncio.wait`, `wait_for`, `shield` and `gather` ask more, which shows late
(where a promise is cancelled, `gather` waits for ever): they are given a task that awaits it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextvars import Context, copy_context
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

Callback = Callable[[Any], object]

#: Requests under way at once; a third of saturation has 2 to 4 on average, 64 clients in a closed loop have 64.
FEW: Final = 8
FEWEST: Final = 2  #: Of them in one reply of the store, or at one backend.


class Promise(Generic[T]):
    """Of a value; made in the loop that it is awaited in."""

    __slots__ = ("_asyncio_future_blocking", "_callback", "_cancelled", "_context", "_done", "_error", "_loop", "_more",
                 "_value")  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._asyncio_future_blocking = False
        self._loop = loop
        self._done = False
        self._cancelled = False
        self._value: T | None = None
        self._error: BaseException | None = None
        self._callback: Callback | None = None
        self._context: Context | None = None
        self._more: list[tuple[Callback, Context]] | None = None

    # -- who makes it -------------------------------------------------------------------------------------------

    def keep(self, value: T) -> None:
        """Here it is; who waits goes on in the next turn of the loop. Nothing happens if it is done already."""
        if self.settle(value):
            self._tell_soon()

    def settle(self, value: T) -> bool:
        """Here it is, and `tell` follows. False: it was done already."""
        if self._done:
            return False
        self._done = True
        self._value = value
        return True

    def tell(self, *, now: bool = True) -> None:
        """Who waits goes on within this call, if no task is running; else, or not `now`, in the next turn."""
        if self._callback is None:
            return
        if not now or asyncio.current_task(self._loop) is not None:
            self._tell_soon()
            return
        callback, context, more = self._callback, self._context, self._more
        self._callback = self._context = self._more = None
        assert context is not None
        context.run(callback, self)
        if more is not None:
            for callback, context in more:
                self._loop.call_soon(callback, self, context=context)

    def keep_now(self, value: T) -> None:
        """`settle` and `tell`."""
        if self.settle(value):
            self.tell()

    def breach(self, error: BaseException) -> None:
        """It will never be; who waits is told so in the next turn. Nothing happens if it is done already."""
        if not self._done:
            self._done = True
            self._error = error
            self._tell_soon()

    def _tell_soon(self) -> None:
        callback, context, more = self._callback, self._context, self._more
        self._callback = self._context = self._more = None
        if callback is not None:
            self._loop.call_soon(callback, self, context=context)
        if more is not None:
            for callback, context in more:
                self._loop.call_soon(callback, self, context=context)

    # -- who waits ----------------------------------------------------------------------------------------------

    def __await__(self) -> Generator[Promise[T], None, T]:
        if not self._done:
            self._asyncio_future_blocking = True
            yield self
        return self.result()

    def done(self) -> bool:
        return self._done

    def cancelled(self) -> bool:
        return self._cancelled

    def result(self) -> T:
        """The value; raises what broke it, or CancelledError."""
        if self._error is not None:
            raise self._error
        if not self._done:
            raise asyncio.InvalidStateError("the promise is not kept yet")
        return self._value  # type: ignore[return-value]  # it is done

    def exception(self) -> BaseException | None:
        """What broke it; None if it was kept."""
        return self._error

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def cancel(self, msg: object = None) -> bool:
        """Called by a task that is cancelled while it waits. Whoever would keep it finds it done."""
        if self._done:
            return False
        self._done = self._cancelled = True
        self._error = asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg)
        self._tell_soon()
        return True

    def add_done_callback(self, callback: Callback, *, context: Context | None = None) -> None:
        if context is None:
            context = copy_context()
        if self._done:
            self._loop.call_soon(callback, self, context=context)
        elif self._callback is None:
            self._callback = callback
            self._context = context
        else:
            if self._more is None:
                self._more = []
            self._more.append((callback, context))
