"""Shadow copies: some requests are also sent to another pool, whose answers nobody waits for.

Invariants: a copy starts as a task of its own once the original has been given to its pool; it shares nothing with the
original that can change, so a client that leaves does not end it and its fate does not reach the client. At most
`max_inflight` copies of a route are under way in a worker, across reloads; what comes on top is dropped and counted.
A copy is tried once, within its own timeout, and charges no limit and no retry budget. An answer that streams is read
to its end and dropped, within that time too, so that the shadow pool does the work it would do for a client. The shadow
pool's own breakers hold: a dead shadow pool costs next to nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway.errors import GatewayError
from gateway.paths import Prefixes, replace_prefix
from gateway.request import Request
from gateway.stream import Stream
from gateway.telemetry.cells import Cells
from gateway.upstreams.caller import Caller
from gateway.upstreams.pool import Pool

SHADOW: Final = b"x-shadow"  # tells the backend that nobody reads its answer; a client's own is never sent on


@dataclass(frozen=True, slots=True)
class ShadowCells:
    """Where copies are counted."""

    classes: tuple[int, int, int, int, int]  # 1xx to 5xx
    failed: int  # no answer, or none that came to its end in time
    dropped: int
    duration: int


@dataclass(frozen=True, slots=True)
class ShadowRules:
    """Of one route. `share` of the requests that reach the route's pool, from 0 to 1."""

    route: str
    pool: Pool
    share: float
    max_inflight: int
    timeout_ns: int
    rewrite: Prefixes
    cells: ShadowCells


class Shadows:
    """One per worker. `draw` returns a float in [0, 1)."""

    def __init__(self, caller: Caller, cells: Cells, draw: Callable[[], float]) -> None:
        self._caller = caller
        self._cells = cells
        self._draw = draw
        self._inflight: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def offer(self, rules: ShadowRules, request: Request, dropped: frozenset[bytes]) -> None:
        """Sends a copy of `request`, or drops it; returns at once. `dropped` are the fields never sent on."""
        if self._closed or (rules.share < 1.0 and self._draw() >= rules.share):
            return
        inflight = self._inflight.get(rules.route, 0)
        if inflight >= rules.max_inflight or rules.pool.inflight >= rules.pool.max_inflight:
            self._cells.add(rules.cells.dropped)
            return
        headers = dict(request.headers)
        headers[SHADOW] = b"1"
        target = replace_prefix(request.target, rules.rewrite)
        copy = Request(request.method, target, request.path, headers, request.body, request.peer, request.minor)
        copy.received, copy.client, copy.id = request.received, request.client, request.id + b"-shadow"
        copy.via = request.via
        self._inflight[rules.route] = inflight + 1
        task = asyncio.get_running_loop().create_task(self._send(rules, copy, dropped - {SHADOW}))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, rules: ShadowRules, copy: Request, dropped: frozenset[bytes]) -> None:
        cells = rules.cells
        began = time.monotonic_ns()
        cell = cells.failed
        try:
            answer = await self._caller.ask(
                rules.pool, copy, copy.target, began + rules.timeout_ns, None, dropped, rules.timeout_ns // 2
            )
            response = answer.response
            if response is not None:
                if response.stream is not None:
                    await _read(response.stream, (began + rules.timeout_ns) / 1e9)
                cell = cells.classes[min(max(response.status // 100, 1), 5) - 1]
        except (GatewayError, TimeoutError):
            pass  # it began to answer and did not end: failed
        finally:
            self._inflight[rules.route] -= 1
            self._cells.add(cell)
            self._cells.observe(cells.duration, time.monotonic_ns() - began)

    @property
    def active(self) -> int:
        """Copies under way."""
        return len(self._tasks)

    async def close(self) -> None:
        """Ends the copies that are under way and takes no more: a drain waits for clients, not for shadows."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def __repr__(self) -> str:
        return f"<Shadows {len(self._tasks)} under way>"


async def _read(stream: Stream, deadline: float) -> None:
    """Reads to the end and drops what comes. Raises TimeoutError at `deadline`, or what the backend failed with."""
    try:
        async with asyncio.timeout_at(deadline):
            while await stream.read():
                pass
    finally:
        stream.abandon()
