"""A load on one address: several clients at once, marks in time, and summaries of any part of it.

::

    async with Load("127.0.0.1", 8080, [Client("a", rate=200, requests=digits)], labels=["x-backend"]) as load:
        await asyncio.sleep(2)
        load.mark("one backend killed")
        kill(backend)
        await asyncio.sleep(2)
    assert load.summary("a", phase="one backend killed").failed == 0

Contract: leaving the block sends no more, waits up to ``patience`` for what is under way, and only then are the
numbers whole. Bounded by itself: ``max_seconds`` after its beginning it stops sending. Phases belong to the time a
request was *due*. Loads go to this machine only unless ``allow_remote`` says that the target is yours.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from loadtests.load.model import Client
from loadtests.load.runner import Runner
from loadtests.load.samples import Sample, Samples, Summary

# Warn from here: half a core's worth of Python left is what keeps the measured latency the server's and not ours.
BUSY_SHARE = 0.85
LATE_P99 = 0.005


class Load:
    """See the module. ``labels`` are response headers (lower case) whose values are counted."""

    def __init__(
        self,
        host: str,
        port: int,
        clients: Sequence[Client],
        *,
        labels: Sequence[str] = ("degraded",),
        max_seconds: float = 600.0,
        patience: float = 10.0,
        allow_remote: bool = False,
    ) -> None:
        names = [client.name for client in clients]
        if not names or len(set(names)) != len(names):
            raise ValueError("a load needs clients, each with a name of its own")
        if not allow_remote and not _loopback(host):
            raise ValueError(f"{host} is not this machine: loads go to loopback unless allow_remote is given")
        self._target = (host, port)
        self._clients = clients
        self._max_seconds = max_seconds
        self._patience = patience
        self._samples = Samples(tuple(label.lower() for label in labels))
        self._marks: list[tuple[str, float]] = []
        self._runners: dict[str, Runner] = {}
        self._origin = 0.0
        self._cpu_origin = 0.0
        self._seconds: float | None = None
        self._busy = 0.0
        self._limit: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        self._origin = time.monotonic()
        self._cpu_origin = time.process_time()
        for client in self._clients:
            self._runners[client.name] = Runner(client, self._target, self._samples, self._origin)
        for runner in self._runners.values():
            runner.start()
        self._limit = asyncio.get_running_loop().call_later(self._max_seconds, self._stop)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._limit is not None:
            self._limit.cancel()
        patience = 0.0 if kind is not None else self._patience
        self._stop()
        await asyncio.gather(*(runner.finish(patience) for runner in self._runners.values()))
        await asyncio.sleep(0)  # lets the closed transports say goodbye

    def _stop(self) -> None:
        if self._seconds is None:
            self._seconds = self.now
            self._busy = (time.process_time() - self._cpu_origin) / max(self._seconds, 1e-9)
            for runner in self._runners.values():
                runner.pause()

    @property
    def now(self) -> float:
        """Seconds since the load began."""
        return time.monotonic() - self._origin

    @property
    def seconds(self) -> float:
        """How long it has been sending."""
        return self.now if self._seconds is None else self._seconds

    @property
    def sending(self) -> bool:
        """Not yet ended, by its caller or by ``max_seconds``."""
        return self._seconds is None

    @property
    def clients(self) -> tuple[str, ...]:
        """Names, in the order given."""
        return tuple(client.name for client in self._clients)

    @property
    def in_flight(self) -> int:
        """Requests under way now, of all clients."""
        return sum(runner.in_flight for runner in self._runners.values())

    def mark(self, phase: str) -> float:
        """A phase begins now and lasts until the next mark or the end; its beginning in seconds."""
        if any(name == phase for name, _ in self._marks):
            raise ValueError(f"there is already a phase {phase!r}")
        now = self.now
        self._marks.append((phase, now))
        return now

    @property
    def phases(self) -> dict[str, tuple[float, float]]:
        """Beginning and end of each phase in seconds; that of the last is the end of the load."""
        ends = [since for _, since in (*self._marks[1:], ("", self.seconds))][: len(self._marks)]
        return {name: (since, end) for (name, since), end in zip(self._marks, ends, strict=True)}

    def set_rate(self, client: str, rate: float) -> None:
        """Change an open-loop client's arrivals per second at once; 0 pauses it."""
        self._runners[client].set_rate(rate)

    def summary(
        self, client: str | None = None, *, phase: str | None = None, since: float = 0.0, until: float = math.inf
    ) -> Summary:
        """Counts and latencies of a client (or all) in a phase or in [since, until); what is under way is not in it."""
        since, until = self._window(phase, since, until)
        return self._samples.summary(client, since, until)

    def samples(
        self, client: str | None = None, *, phase: str | None = None, since: float = 0.0, until: float = math.inf
    ) -> list[Sample]:
        """The rows themselves, ordered by when each was due."""
        since, until = self._window(phase, since, until)
        return sorted(self._samples.select(client, since, until), key=lambda sample: sample.due)

    def timeline(self, client: str | None = None, step: float = 1.0) -> list[tuple[float, Summary]]:
        """A summary per ``step`` seconds, each with its beginning."""
        return self._samples.timeline(client, self.seconds, step)

    def warnings(self) -> list[str]:
        """Why the latencies may be the generator's and not the server's; empty when they are the server's."""
        found = []
        if self._busy > BUSY_SHARE:
            found.append(f"the generator used {self._busy:.0%} of a core: offer less, or use several processes")
        for name in self.clients:
            lag = self.summary(name).lag_p99
            if lag > LATE_P99:
                found.append(f"client {name!r} sent late: p99 {lag * 1e3:.1f} ms after a request was due")
        return found

    def _window(self, phase: str | None, since: float, until: float) -> tuple[float, float]:
        if phase is None:
            return since, min(until, self.seconds)
        begin, end = self.phases[phase]
        return max(begin, since), min(end, until)


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
