"""The connection to the store is tested on asyncio's own loop and on uvloop."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import uvloop

if (root := str(Path(__file__).parents[2])) not in sys.path:
    sys.path.append(root)  # for `loadtests`; last, so that an installed `gateway` stays the one that is tested


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
