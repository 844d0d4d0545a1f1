"""Tests about short times, on a machine that may be busy or stopped for a moment: who stalls proves nothing.

A test marked `@pytest.mark.undisturbed` runs its coroutine beside a watch on the event loop. Where it fails and the loop
stood still for longer than the test can bear meanwhile (`stall=` seconds; 5 ms unless told), the run says nothing about
the gateway, and the test runs again; a failure of a run that nothing disturbed is a failure at once. Such a test
makes what it needs itself: fixtures are not made anew. Everything else waits up to `GUARD` seconds for what must
come, and never asserts that it came quickly.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

GUARD = 30.0  # seconds until what does not come is taken for lost
TRIES_FOR = 30.0  # seconds in which a disturbed test may begin again
TICK = 0.001  # seconds between two looks at the clock

Test = Callable[..., Coroutine[Any, Any, None]]


class Watch:
    """Notes in `worst` the longest time in seconds for which the running loop stood still."""

    def __init__(self) -> None:
        self.worst = 0.0
        self._looked = time.monotonic()

    async def look(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            now = time.monotonic()
            self.worst = max(self.worst, now - self._looked - TICK)
            self._looked = now


def undisturbed(test: Test, stall: float = 0.005) -> Test:
    """The test, begun again when it fails in a run in which the loop stood still for longer than `stall` seconds."""

    @functools.wraps(test)
    async def run(*args: Any, **kwargs: Any) -> None:
        end = time.monotonic() + TRIES_FOR
        while True:
            watch = Watch()
            watching = asyncio.ensure_future(watch.look())
            try:
                return await test(*args, **kwargs)
            except (Exception, pytest.fail.Exception):
                await asyncio.sleep(2 * TICK)  # so that the watch has seen what happened last
                if watch.worst <= stall or time.monotonic() > end:
                    raise
            finally:
                watching.cancel()
            await asyncio.sleep(0.1)

    return run
