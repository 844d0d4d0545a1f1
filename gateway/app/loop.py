"""Which event loop: uvloop unless `GATEWAY_LOOP=asyncio` asks for the standard one or uvloop is not installed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from typing import TypeVar

T = TypeVar("T")


def run_in_loop(main: Coroutine[object, object, T]) -> T:
    """Runs `main` to its end."""
    factory = None
    if os.environ.get("GATEWAY_LOOP", "uvloop") != "asyncio":
        try:
            import uvloop
        except ImportError:
            pass
        else:
            factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)
