from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

from gateway.admission.admission import Admission
from gateway.admission.queue import Ticket
from gateway.request import Outcome

MS = 1_000_000
S = 1_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now = 0
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._n = 0

    def at(self, when: float, call: Callable[..., None], *args: Any) -> None:
        self._n += 1
        heapq.heappush(self._heap, (int(when), self._n, call, args))

    def after(self, delay: float, call: Callable[..., None], *args: Any) -> None:
        self.at(self.now + delay, call, *args)

    def run(self, until: float) -> None:
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, call, args = heapq.heappop(heap)
            call(*args)
        self.now = int(until)


class Job:
    __slots__ = ("done", "gone", "started")

    def __init__(self, done: Callable[[Outcome], None]) -> None:
        self.done = done
        self.gone = False
        self.started = False


class Slots:
    """FIFO."""

    def __init__(self, clock: Clock, rng: random.Random, slots: int = 4, service: float = 20 * MS, kind: str = "fixed",
                 refuse_over: int = 0) -> None:
        self.clock, self.rng = clock, rng
        self.slots, self.service, self.kind = slots, service, kind
        self.refuse_over = refuse_over
        self.line: list[Job] = []
        self.running = 0
        self.stalled = False

    def draw(self) -> float:
        if self.kind == "exp":
            return self.rng.expovariate(1) * self.service
        if self.kind == "bimodal":
            return self.service * (10 if self.rng.random() < 0.05 else 1)
        return self.service * self.rng.uniform(0.995, 1.01)

    def submit(self, job: Job) -> None:
        if self.refuse_over and self.running + len(self.line) >= self.refuse_over:
            self.clock.after(0.05 * MS, job.done, Outcome.DROPPED)
            return
        self.line.append(job)
        self.go()

    def go(self) -> None:
        while self.running < self.slots and self.line and not self.stalled:
            job = self.line.pop(0)
            if job.gone:
                continue
            self.running += 1
            job.started = True
            self.clock.after(self.draw(), self.end, job)

    def end(self, job: Job) -> None:
        if self.stalled:
            self.clock.after(1 * MS, self.end, job)
            return
        self.running -= 1
        job.done(Outcome.SUCCESS)
        self.go()


class Shared:
    """Processor sharing over `cores`."""

    def __init__(self, clock: Clock, rng: random.Random, cores: int = 4, service: float = 20 * MS) -> None:
        self.clock, self.rng, self.cores, self.service = clock, rng, cores, service
        self.jobs: dict[Job, float] = {}
        self.last = 0
        self.epoch = 0

    def _advance(self) -> None:
        if self.jobs:
            pace = min(1.0, self.cores / len(self.jobs))
            passed = (self.clock.now - self.last) * pace
            for job in self.jobs:
                self.jobs[job] -= passed
        self.last = self.clock.now

    def _plan(self) -> None:
        self.epoch += 1
        if self.jobs:
            pace = min(1.0, self.cores / len(self.jobs))
            self.clock.after(max(1, min(self.jobs.values()) / pace), self._tick, self.epoch)

    def _tick(self, epoch: int) -> None:
        if epoch != self.epoch:
            return
        self._advance()
        over = [job for job, left in self.jobs.items() if left <= 1000]
        for job in over:
            del self.jobs[job]
        self._plan()
        for job in over:
            job.done(Outcome.SUCCESS)

    def submit(self, job: Job) -> None:
        self._advance()
        self.jobs[job] = self.service * self.rng.uniform(0.9, 1.1)
        self._plan()


class Batches:
    """One executor; a batch of n takes fixed + n * each."""

    def __init__(self, clock: Clock, rng: random.Random, fixed: float, each: float, most: int = 32) -> None:
        self.clock, self.fixed, self.each, self.most = clock, fixed, each, most
        self.line: list[Job] = []
        self.busy = False

    def submit(self, job: Job) -> None:
        self.line.append(job)
        self.go()

    def go(self) -> None:
        if self.busy or not self.line:
            return
        batch, self.line = self.line[: self.most], self.line[self.most :]
        self.busy = True
        self.clock.after(self.fixed + self.each * len(batch), self.end, batch)

    def end(self, batch: list[Job]) -> None:
        self.busy = False
        for job in batch:
            job.done(Outcome.SUCCESS)
        self.go()


class Result:
    def __init__(self) -> None:
        self.rows: list[tuple[int, str, float, str, int]] = []  # due, stream, latency, ending, class

    def add(self, due: int, stream: str, latency: float, ending: str) -> None:
        self.rows.append((due, stream, latency, ending, 0))

    def window(self, since: float, until: float, stream: str | None = None) -> "View":
        return View([r for r in self.rows if since * S <= r[0] < until * S and stream in (None, r[1])], until - since)


class View:
    def __init__(self, rows: list[Any], seconds: float) -> None:
        self.offered = len(rows)
        self.ok = sorted(r[2] for r in rows if r[3] == "ok")
        self.seconds = seconds
        self.rejected = sorted(r[2] for r in rows if r[3] == "rejected")
        self.timeouts = sum(r[3] == "timeout" for r in rows)

    @property
    def goodput(self) -> float:
        return len(self.ok) / self.seconds

    def p(self, q: float, rows: list[float] | None = None) -> float:
        rows = self.ok if rows is None else rows
        return rows[max(0, math.ceil(len(rows) * q) - 1)] / MS if rows else math.nan

    def __str__(self) -> str:
        return (f"offered {self.offered / self.seconds:7.0f}/s good {self.goodput:7.1f}/s p50 {self.p(.5):6.1f} p99 {self.p(.99):6.1f} "
                f"rejected {len(self.rejected) / max(1, self.offered):6.1%} (p50 {self.p(.5, self.rejected):5.1f} p99 {self.p(.99, self.rejected):5.1f}) timeouts {self.timeouts}")


class Stream:
    """An open-loop client."""

    def __init__(self, name: str, rate: float, priority: int = 1, flow: bytes = b"", patience: float = 500 * MS, batch: int = 1,
                 deadline: float = 30 * S) -> None:
        self.name, self.rate, self.priority, self.flow = name, rate, priority, flow or name.encode()
        self.patience, self.batch, self.deadline = patience, batch, deadline


class World:
    def __init__(self, backend: Callable[["World"], Any], admissions: list[Admission], streams: list[Stream], seed: int = 1,
                 link: float = 0.25 * MS, jitter: float = 0.1 * MS) -> None:
        self.clock = Clock()
        self.rng = random.Random(seed)
        self.backend = backend(self)
        self.admissions = admissions
        self.streams = streams
        self.link, self.jitter = link, jitter
        self.result = Result()
        for stream in streams:
            self.clock.at(self.gap(stream), self.arrive, stream)
        for a in admissions:
            self.clock.after(10 * MS, self.sweep, a)

    def gap(self, stream: Stream) -> float:
        return self.rng.expovariate(stream.rate / stream.batch) * S if stream.rate else 1 * S

    def sweep(self, a: Admission) -> None:
        a.sweep(self.clock.now)
        self.clock.after(2 * MS, self.sweep, a)

    def arrive(self, stream: Stream) -> None:
        self.clock.after(self.gap(stream), self.arrive, stream)
        if not stream.rate:
            return
        for _ in range(stream.batch):
            Call(self, stream, self.rng.choice(self.admissions))

    def run(self, until: float) -> Result:
        self.clock.run(until * S)
        return self.result


class Call:
    """One request."""

    def __init__(self, world: World, stream: Stream, admission: Admission) -> None:
        self.world, self.stream, self.admission = world, stream, admission
        self.due = world.clock.now
        self.over = False
        self.holding = False
        self.mark = 0
        self.sent = 0
        self.job: Job | None = None
        world.clock.after(stream.patience, self.give_up)
        now = world.clock.now
        mark = admission.enter(stream.priority, now)
        self.ticket: Ticket | None = None
        if mark >= 0:
            self.send(mark)
            return
        self.ticket = Ticket(stream.priority, stream.flow, now, now + int(stream.deadline), self.wake)
        if not admission.wait(self.ticket, now):
            self.end("rejected")

    def wake(self) -> bool:
        assert self.ticket is not None
        if self.over:
            return False
        if self.ticket.reason >= 0:
            self.end("rejected")
        else:
            self.send(self.ticket.mark)
        return True

    def send(self, mark: int) -> None:
        self.mark = mark
        self.holding = True
        self.sent = self.world.clock.now
        self.job = Job(self.answered)
        self.world.clock.after(self.delay(), self.world.backend.submit, self.job)

    def delay(self) -> float:
        return self.world.link + self.world.rng.expovariate(1) * self.world.jitter

    def answered(self, outcome: Outcome) -> None:
        self.world.clock.after(self.delay(), self.back, outcome)

    def back(self, outcome: Outcome) -> None:
        if self.holding:
            self.holding = False
            now = self.world.clock.now
            self.end("ok" if outcome is Outcome.SUCCESS else "rejected")
            self.admission.release(self.mark, now - self.sent, outcome, now)

    def give_up(self) -> None:
        if self.over:
            return
        self.end("timeout")
        if self.holding:
            self.holding = False
            assert self.job is not None
            self.job.gone = True
            now = self.world.clock.now
            self.admission.release(self.mark, now - self.sent, Outcome.IGNORE, now)
        elif self.ticket is not None:
            self.admission.leave(self.ticket, self.world.clock.now)

    def end(self, how: str) -> None:
        if not self.over:
            self.over = True
            self.world.result.add(self.due, self.stream.name, self.world.clock.now - self.due, how)
