"""Coroutines that continue inside the event they wait for, instead of one loop iteration later.

An `asyncio.Task` that awaits a future is resumed through `call_soon`: a handle, a context switch and one more trip
round the loop, about 1.6 us each time, three times per request. A `Runner` steps its coroutine right where the
`Slot` it waits for is filled. A `Slot` is an ordinary future to everybody else, and a `Runner` can await ordinary
futures (it is then resumed as a task would be), so both mix freely with asyncio.

Invariants: a coroutine is never stepped while it runs; `cancel` raises CancelledError inside it at once; whatever it
raises ends here. Not inside a Runner: `asyncio.timeout` and whatever else asks for the current task; give such work
a task of its own and await that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Slot(asyncio.Future[T]):
    """A value to wait for. `fill` and `break_` may be called once each way; later calls are ignored."""

    resume: Callable[[], None] | None = None

    def fill(self, value: T) -> None:
        if not self.done():
            self.set_result(value)
            if self.resume is not None:
                self.resume()

    def spoil(self, error: BaseException) -> None:
        if not self.done():
            self.set_exception(error)
            if self.resume is not None:
                self.resume()


class Runner:
    """Runs one coroutine from `start` to its end or `cancel`."""

    __slots__ = ("_coroutine", "_loop", "_running", "_waiting", "done")

    def __init__(self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, None, None]) -> None:
        self._loop = loop
        self._coroutine = coroutine
        self._waiting: asyncio.Future[Any] | None = None
        self._running = False
        self.done = False

    def start(self) -> None:
        """Steps for the first time, now."""
        self._step(None)

    def cancel(self) -> None:
        """Raises CancelledError inside the coroutine, now; nothing when it has ended."""
        waiting, self._waiting = self._waiting, None
        if self.done or self._running:
            return
        if waiting is not None:
            if isinstance(waiting, Slot):
                waiting.resume = None
            waiting.cancel()
        self._step(asyncio.CancelledError())

    def _resume(self) -> None:
        self._waiting = None
        self._step(None)

    def _woken(self, future: asyncio.Future[Any]) -> None:
        if future is self._waiting:
            self._resume()

    def _step(self, error: BaseException | None) -> None:
        self._running = True
        try:
            waited = self._coroutine.send(None) if error is None else self._coroutine.throw(error)
        except (StopIteration, asyncio.CancelledError):
            self.done = True
            return
        except BaseException as crash:
            self.done = True
            self._loop.call_exception_handler({"message": "a request's coroutine crashed", "exception": crash})
            return
        finally:
            self._running = False
        if waited is None:  # a bare yield: asyncio.sleep(0)
            self._loop.call_soon(self._resume)
            return
        waited._asyncio_future_blocking = False
        self._waiting = waited
        if type(waited) is Slot:
            waited.resume = self._resume
        else:
            waited.add_done_callback(self._woken)
