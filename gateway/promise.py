"""What a task awaits, and is stepped by in the very event that brings it.

An `asyncio.Future` has its task stepped in the loop's next turn: a handle and another look at all sockets for each
thing that a request waits for. A `Promise` does that, too (`keep`), but whoever knows that nothing of its own is half
done says `keep_now`, as the last act of a `data_received`, and the task runs within that call. Where another task is
running, as in a test that plays the transport, that is put off to the next turn: a task cannot run inside another.

At once is sooner, and cheaper where requests come alone. Where they come in company the turn between is a gain: more of
them share a call of the store, and each step is taken by many while its code is warm. So whoever keeps a promise does
it at once only while no more than `FEW` are about, or `FEWEST` where less than all can be seen.

Invariants: kept, broken or cancelled once; its callbacks are called once, in their own context, and what one raises
goes to the loop's handler of exceptions and not to whoever keeps the promise. No task is stepped within another, so a
chain of tasks that keep one another's is no recursion. To asyncio it is a future (PEP 3156), with what a task asks of
one (`_asyncio_future_blocking` since Python 3.5.3) and what `gather`, `wait`, `wait_for` and `shield` do
(`remove_done_callback`, `_make_cancelled_error`, `_cancel_message`; Python 3.11 to 3.13).
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
        if more is not None:
            self._call_soon(more)
        try:
            context.run(callback, self)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - as the loop does
            what = {"message": f"Exception in callback {callback!r}", "exception": error, "future": self}
            self._loop.call_exception_handler(what)

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
            self._call_soon(more)

    def _call_soon(self, more: list[tuple[Callback, Context]]) -> None:
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
        """What broke it; None if it was kept. Raises CancelledError."""
        if not self._done:
            raise asyncio.InvalidStateError("the promise is not kept yet")
        if self._cancelled:
            raise self._make_cancelled_error()
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

    @property
    def _cancel_message(self) -> object:
        return self._error.args[0] if self._cancelled and self._error is not None and self._error.args else None

    def _make_cancelled_error(self) -> asyncio.CancelledError:
        message = self._cancel_message
        return asyncio.CancelledError() if message is None else asyncio.CancelledError(message)

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

    def remove_done_callback(self, callback: Callback) -> int:
        """Of those that were not called yet; returns how many there were."""
        if self._callback is None or self._context is None:
            return 0
        waiting = [(self._callback, self._context), *(self._more or ())]
        self._callback = self._context = self._more = None
        removed = 0
        for each, context in waiting:
            if each == callback:
                removed += 1
            else:
                self.add_done_callback(each, context=context)
        return removed
