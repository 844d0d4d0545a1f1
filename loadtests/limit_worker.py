"""One worker of a limiter benchmark: the real Limiter on the real store, without HTTP. Run as a file, prints JSON.

Its single argument is a `Task` as JSON. It says "ready", begins when a line comes on standard input, and ends by
itself.
What it measures is the code of the gateway from `Limiter.begin` to the decision, in a loop of its own.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import resource
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from gateway.limits.bucket import BucketSpec
from gateway.limits.costs import Cost
from gateway.limits.limiter import Limiter
from gateway.limits.policy import LimitPolicy
from gateway.limits.scopes import ClientScope, GlobalScope
from gateway.limits.verdict import LimitVerdict, RouteLimits
from gateway.request import Request
from gateway.store import program
from gateway.store.address import StoreAddress
from gateway.store.buckets import SHA
from gateway.store.fleet import Fleet
from gateway.store.link import StoreTimes
from gateway.store.shared import SharedStore

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.append(str(Path(__file__).parents[1]))  # last, so that `gateway` is the installed one

from loadtests.load.timer import Timer

CLOCK = LimitPolicy("clock", GlobalScope(), BucketSpec(1e6, 1e15), cost=Cost(0.0))
"""A bucket that gains a token a microsecond and loses none: its level tells the store's time."""


@dataclass(frozen=True, slots=True)
class Task:
    """`per_second` 0: as many as `concurrency` loops can ask. `record`: every decision, with the store's time."""

    seed: int
    port: int
    keys: int
    rate: float
    burst: float
    seconds: float
    mode: str = "exact"
    per_second: float = 0.0
    concurrency: int = 128
    gateway: str = "g"
    workers: int = 1
    record: bool = False
    idle: bool = False  # the driver alone: its task, its clocks and its notes, and nobody is asked
    bare: str = ""  # PING or EVALSHA: this call on the same connection, sent and awaited, in place of each decision
    sentinels: tuple[int, ...] = ()
    unix_path: str | None = None  # of the store's socket, in place of the port


@dataclass(slots=True)
class Told:
    """What a worker found. Times are `time.monotonic` in seconds, which all processes share; by key: admitted,
    first asked, last answered.
    """

    asked: int = 0
    admitted: int = 0
    alone: int = 0
    calls: int = 0
    failures: int = 0
    losses: int = 0  # connections to the store given up
    doubts: int = 0  # and not given up
    refunded: float = 0.0  # tokens that a late store had taken for nothing
    cpu_s: float = 0.0
    seconds: float = 0.0
    members: int = 1
    longest_ms: float = 0.0
    waits_ms: dict[str, float] = field(default_factory=dict)
    keys: dict[str, list[float]] = field(default_factory=dict)
    records: list[list[float]] = field(default_factory=list)


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Worker:
    def __init__(self, task: Task) -> None:
        self.task = task
        self.told = Told()
        self.draw = random.Random(task.seed)
        policy = LimitPolicy("limit", ClientScope(), BucketSpec(task.rate, task.burst), mode=task.mode)  # type: ignore[arg-type]
        self.limits = RouteLimits("r", [policy, CLOCK] if task.record else [policy], "bench")
        self.program = program.head(program.TAKE, 1, 1) + self.limits.shape  # what a decision by itself sends
        self.request = Request(b"GET", b"/", b"/", {})
        self.names = [b"c%d" % i for i in range(task.keys)]
        self.admitted = [0] * task.keys
        self.first = [0.0] * task.keys
        self.last = [0.0] * task.keys
        self.waits: list[float] = []

    async def run(self) -> Told:
        task = self.task
        times = StoreTimes()
        hosts = tuple(("127.0.0.1", port) for port in task.sentinels)
        address = (
            StoreAddress(sentinels=hosts, service="main")
            if hosts
            else StoreAddress("127.0.0.1", task.port, unix_path=task.unix_path)
        )
        self.store = SharedStore(address, times, "bench", self._turned)
        self.limiter = Limiter(self.store.buckets, identity=random.SystemRandom().randbytes(8))
        self.undecided = LimitVerdict(self.limiter, self.limits, [b""], 0) if task.idle or task.bare else None
        self.fleet = Fleet(address, times, "bench", task.gateway.encode(), self.limiter.share_with)
        self.fleet.set_own(task.workers)
        self.store.start()
        self.fleet.start()
        await self.store.ready(5)
        gc.collect()
        gc.freeze()  # as a worker of the gateway does
        gc.set_threshold(20_000, 20, 50)
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        ticker = asyncio.ensure_future(self._tick())
        calls, began, used = self.store.calls, time.monotonic(), cpu()
        if task.per_second:
            await self._open_loop(began)
        else:
            await asyncio.gather(*(self._closed_loop(began + task.seconds) for _ in range(task.concurrency)))
        told = self.told
        told.cpu_s, told.seconds = cpu() - used, time.monotonic() - began
        told.calls, told.failures, told.members = self.store.calls - calls, self.store.failures, self.fleet.members
        told.losses, told.doubts, told.refunded = self.store.losses, self.store.doubts, self.limiter.refunded
        ticker.cancel()
        self.limiter.return_leases()
        self.store.flush()
        await asyncio.sleep(0.05)
        await self.fleet.close()
        await self.store.close()
        waits = sorted(self.waits)
        for name, at in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
            told.waits_ms[name] = waits[min(len(waits) - 1, int(len(waits) * at))] * 1e3 if waits else 0.0
        told.keys = {str(i): [self.admitted[i], self.first[i], self.last[i]] for i in range(task.keys) if self.last[i]}
        told.admitted = sum(self.admitted)
        return told

    def _turned(self, up: bool, forgot: bool) -> None:
        if up:
            self.limiter.back(time.monotonic_ns(), forgot=forgot)
        else:
            self.limiter.away(time.monotonic_ns())

    async def _tick(self) -> None:
        while True:
            self.limiter.tick(time.monotonic_ns())
            await asyncio.sleep(0.25)

    async def _closed_loop(self, end: float) -> None:
        task, count = self.task, 0
        leased = task.mode == "leased"
        while time.monotonic() < end:
            i = int(self.draw.random() * task.keys)
            await self._ask(i)
            count += 1
            if leased and not count % 8:
                await asyncio.sleep(0)  # a decision that waits for nobody lets nobody else run

    async def _open_loop(self, began: float) -> None:
        """Poisson arrivals; each is asked when it is due, whatever became of the others."""
        loop, task = asyncio.get_running_loop(), self.task
        done = loop.create_future()
        tasks: set[asyncio.Task[None]] = set()
        due = began

        def wake() -> None:
            nonlocal due
            now = time.monotonic()
            while due <= now and due < began + task.seconds:
                asking = loop.create_task(self._ask(int(self.draw.random() * task.keys)))
                tasks.add(asking)
                asking.add_done_callback(tasks.discard)
                due += self.draw.expovariate(task.per_second)
            if due >= began + task.seconds:
                if not done.done():
                    done.set_result(None)
            else:
                timer.set(due)

        timer = Timer(loop, wake)
        wake()
        await done
        timer.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=2)

    async def _ask(self, i: int) -> None:
        request = self.request
        request.client = self.names[i]
        before = time.monotonic()
        verdict = await self._decision(request, time.monotonic_ns())
        after = time.monotonic()
        told = self.told
        told.asked += 1
        told.alone += verdict.by == 1
        if not self.first[i]:
            self.first[i] = before
        self.last[i] = after
        self.admitted[i] += verdict.allowed
        if len(self.waits) < 200_000:
            self.waits.append(after - before)
        if self.task.record:
            self._record(verdict, before, after, i, waited=verdict.pending is not None)

    async def _decision(self, request: Request, now: int) -> LimitVerdict:
        """Or what stands for it."""
        if self.undecided is None:
            verdict = self.limiter.begin(self.limits, request, now)
            if verdict.pending is not None:
                await verdict.pending
            return verdict
        if self.task.bare:
            link = self.store.link(self.names[0])
            assert link is not None
            assert link.connection is not None
            if self.task.bare == "PING":
                await link.connection.call("PING")
            else:
                await link.connection.call("EVALSHA", SHA, 1, self.limits.prefixes[0] + request.client, self.program)
        return self.undecided

    def _record(self, verdict: LimitVerdict, before: float, after: float, i: int, *, waited: bool) -> None:
        clock = verdict.levels[1] if not verdict.by else -1.0
        self.told.records.append(
            [before, after, i, float(verdict.allowed), verdict.levels[0], clock, float(verdict.by), float(waited)]
        )


def main() -> None:
    """Does the task of the command line."""
    given: dict[str, Any] = json.loads(sys.argv[1])
    given["sentinels"] = tuple(given.get("sentinels", ()))
    told = uvloop.run(Worker(Task(**given)).run())
    print(json.dumps(asdict(told)), flush=True)


if __name__ == "__main__":
    main()
