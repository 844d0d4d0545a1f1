"""Virtual time: open-loop clients, workers with the gateway's own `Admission`, and backends made of numbers.

Nothing here sleeps: a thousand virtual requests take some 20 ms. All chance comes from one seed. Times are nanoseconds
on the inside; rates are per second, and what is told is milliseconds.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from gateway.admission.admission import Admission, AdmissionSettings
from gateway.admission.places import Places
from gateway.admission.queue import Ticket
from gateway.request import Outcome

MS = 1_000_000
S = 1_000_000_000
SWEEP = 2 * MS
IDLE = 250 * MS  # between two sweeps of a worker in which nobody waits
BELL = 0.1 * MS  # until a worker that was rung for runs
TARGET = 5 * MS


class Clock:
    """What happens when."""

    def __init__(self) -> None:
        self.now = 0
        self._coming: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = 0

    def after(self, delay: float, call: Callable[..., None], *args: Any) -> None:
        self._number += 1
        heapq.heappush(self._coming, (self.now + int(delay), self._number, call, args))

    def run(self, until: int) -> None:
        while self._coming and self._coming[0][0] <= until:
            self.now, _, call, args = heapq.heappop(self._coming)
            call(*args)
        self.now = until


class Job:
    """A request at a backend. `gone`: nobody waits for it any more. `service`: what it takes, if it says so itself."""

    __slots__ = ("done", "gone", "service")

    def __init__(self, done: Callable[[Outcome], None], service: float = 0.0) -> None:
        self.done = done
        self.gone = False
        self.service = service


class Backend(Protocol):
    def submit(self, job: Job) -> None: ...


class Slots:
    """Serves `slots` at a time in order of arrival; one that runs is not cancelled. `kind` of service time: fixed (to
    1 %), exp, or bimodal (5 % take ten times as long). Above `most` at once it refuses.
    """

    def __init__(
        self, world: World, slots: int = 4, service: float = 20 * MS, kind: str = "fixed", most: int = 1 << 30
    ) -> None:
        self._clock, self._chance = world.clock, world.chance
        self.slots, self.service, self.kind, self.most = slots, service, kind, most
        self.stalled = False
        self._line: list[Job] = []
        self._running = 0

    def submit(self, job: Job) -> None:
        if self._running + len(self._line) >= self.most:
            self._clock.after(0.05 * MS, job.done, Outcome.DROPPED)
            return
        self._line.append(job)
        self.go_on()

    def go_on(self) -> None:
        while self._running < self.slots and self._line and not self.stalled:
            job = self._line.pop(0)
            if not job.gone:
                self._running += 1
                self._clock.after(job.service or self._draw(), self._end, job)

    def _draw(self) -> float:
        if self.kind == "exp":
            return self._chance.expovariate(1) * self.service
        if self.kind == "bimodal":
            return self.service * (10 if self._chance.random() < 0.05 else 1)
        return self.service * self._chance.uniform(0.995, 1.005)

    def _end(self, job: Job) -> None:
        if self.stalled:
            self._clock.after(MS, self._end, job)
            return
        self._running -= 1
        job.done(Outcome.SUCCESS)
        self.go_on()


class Roomy:
    """Has room for everything; every request takes the time it says, to a tenth."""

    def __init__(self, world: World, service: float = 20 * MS) -> None:
        self._clock, self._chance = world.clock, world.chance
        self.service = service

    def submit(self, job: Job) -> None:
        took = (job.service or self.service) * self._chance.uniform(0.9, 1.1)
        self._clock.after(took, job.done, Outcome.SUCCESS)


class Shared:
    """`cores` are shared by all that is there, as threads do."""

    def __init__(self, world: World, cores: int = 4, service: float = 20 * MS) -> None:
        self._clock, self._chance = world.clock, world.chance
        self.cores, self.service = cores, service
        self._left: dict[Job, float] = {}
        self._since = 0
        self._plan = 0

    @property
    def _pace(self) -> float:
        return min(1.0, self.cores / max(1, len(self._left)))

    def submit(self, job: Job) -> None:
        self._catch_up()
        self._left[job] = self.service * self._chance.uniform(0.9, 1.1)
        self._look_ahead()

    def _catch_up(self) -> None:
        done = (self._clock.now - self._since) * self._pace
        self._left = {job: left - done for job, left in self._left.items()}
        self._since = self._clock.now

    def _look_ahead(self) -> None:
        self._plan += 1
        if self._left:
            self._clock.after(max(1, min(self._left.values()) / self._pace), self._end, self._plan)

    def _end(self, plan: int) -> None:
        if plan != self._plan:
            return
        self._catch_up()
        over = [job for job, left in self._left.items() if left <= 1000]
        for job in over:
            del self._left[job]
        self._look_ahead()
        for job in over:
            job.done(Outcome.SUCCESS)


class Batches:
    """Gathers what waits into batches of up to `most`; one of n takes `fixed` + n x `each`."""

    def __init__(self, world: World, fixed: float, each: float, most: int = 32) -> None:
        self._clock = world.clock
        self.fixed, self.each, self.most = fixed, each, most
        self._line: list[Job] = []
        self._busy = False

    def submit(self, job: Job) -> None:
        self._line.append(job)
        self._go_on()

    def _go_on(self) -> None:
        if self._busy or not self._line:
            return
        batch, self._line = self._line[: self.most], self._line[self.most :]
        self._busy = True
        self._clock.after(self.fixed + self.each * len(batch), self._end, batch)

    def _end(self, batch: list[Job]) -> None:
        self._busy = False
        for job in batch:
            job.done(Outcome.SUCCESS)
        self._go_on()


class Stream:
    """An open-loop client: `rate` a second in Poisson bursts of `burst`; gives up after `patience`. Its requests'
    `deadline` is what the gateway knows of that.
    """

    def __init__(
        self, name: str, rate: float, priority: int = 1, burst: int = 1, patience: float = 500 * MS,
        deadline: float = 30 * S,
    ) -> None:  # fmt: skip
        self.name, self.rate, self.priority, self.burst = name, rate, priority, burst
        self.patience, self.deadline = patience, deadline


class Loop(Stream):
    """A closed loop: `clients` that ask, wait for the answer and `think`, from `begins` on; after a refusal they wait
    for 200 ms. Their requests take `service`, wherever they are served.
    """

    def __init__(
        self, name: str, clients: int, service: float, think: float = 0.0, begins: float = 0.0, ends: float = 1e9,
        patience: float = 60 * S, deadline: float = 30 * S,
    ) -> None:  # fmt: skip
        super().__init__(name, 0.0, patience=patience, deadline=deadline)
        self.clients, self.service, self.think, self.begins, self.ends = clients, service, think, begins, ends


class Row(NamedTuple):
    """One request: when it was due, whose, how long it took, and "ok", "refused" or "timeout"."""

    due: int
    stream: str
    took: int
    end: str


class View:
    """What clients saw of the requests due in a window."""

    def __init__(self, rows: Sequence[Row], seconds: float) -> None:
        self.offered = len(rows)
        self.rate = self.offered / seconds
        self.served = sorted(row.took for row in rows if row.end == "ok")
        self.refusals = sorted(row.took for row in rows if row.end == "refused")
        self.goodput = len(self.served) / seconds
        self.refused = len(self.refusals)
        self.timeouts = sum(row.end == "timeout" for row in rows)

    def p(self, q: float) -> float:
        """A percentile of the served, in milliseconds."""
        return percentile(self.served, q)

    def refusal(self, q: float) -> float:
        """A percentile of the refused, in milliseconds."""
        return percentile(self.refusals, q)


def percentile(ordered: Sequence[int], q: float) -> float:
    return ordered[max(0, math.ceil(len(ordered) * q / 100) - 1)] / MS if ordered else math.nan


def learning(workers: int = 1, most: int = 1024) -> list[Admission]:
    """The gateway's admission as it is by default, one per worker."""
    memory = Places.memory(workers)
    settings = AdmissionSettings(0, most, 1024, TARGET)
    return [Admission(settings, 1, Places(memory, 0, number, workers)) for number in range(workers)]


def strangers(gateways: int, most: int = 1024) -> list[Admission]:
    """Of gateways that only know how many they are."""
    return [Admission(AdmissionSettings(0, most, 1024, TARGET), gateways) for _ in range(gateways)]


class World:
    """Streams, workers that a stream's requests are dealt to by lot, and one backend, a `hop` (and some) away."""

    def __init__(
        self,
        backend: Callable[[World], Backend],
        workers: Sequence[Admission],
        streams: Sequence[Stream],
        *,
        seed: int = 1,
        hop: float = 0.25 * MS,
        jitter: float = 0.1 * MS,
    ) -> None:
        self.clock = Clock()
        self.chance = random.Random(seed)
        self.backend = backend(self)
        self.workers = workers
        self.rows: list[Row] = []
        self._hop, self._jitter = hop, jitter
        for stream in streams:
            if isinstance(stream, Loop):
                for _ in range(stream.clients):
                    self.clock.after(stream.begins * S + self.chance.random() * MS, self.ask, stream)
            else:
                self.clock.after(self._gap(stream), self._arrive, stream)
        self._numbered = {worker.places.number: worker for worker in workers}
        for worker in workers:
            worker.places.bell = self._ring
            self.clock.after(SWEEP, self._sweep, worker, 0)

    def run(self, until: float) -> None:
        """Goes on to `until` seconds."""
        self.clock.run(int(until * S))

    def seen(self, since: float, until: float, stream: str | None = None) -> View:
        begin, end = since * S, until * S
        rows = [row for row in self.rows if begin <= row.due < end and stream in (None, row.stream)]
        return View(rows, until - since)

    def ask(self, stream: Loop) -> None:
        if self.clock.now < stream.ends * S:
            Call(self, stream, self.chance.choice(self.workers))

    def way(self) -> float:
        """To the backend, or back."""
        return self._hop + self.chance.expovariate(1) * self._jitter

    def _gap(self, stream: Stream) -> float:
        return self.chance.expovariate(stream.rate / stream.burst) * S if stream.rate else 0.01 * S

    def _sweep(self, worker: Admission, idle: int) -> None:
        if worker.queue.size or idle >= IDLE:
            worker.sweep(self.clock.now)
            idle = 0
        self.clock.after(SWEEP, self._sweep, worker, idle + SWEEP)

    def _ring(self, number: int) -> None:
        self.clock.after(BELL, self._wake, self._numbered[number])

    def _wake(self, worker: Admission) -> None:
        worker.sweep(self.clock.now)

    def _arrive(self, stream: Stream) -> None:
        self.clock.after(self._gap(stream), self._arrive, stream)
        for _ in range(stream.burst if stream.rate else 0):
            Call(self, stream, self.chance.choice(self.workers))


class Call:
    """One request on its way."""

    def __init__(self, world: World, stream: Stream, admission: Admission) -> None:
        self._world, self._stream, self._admission = world, stream, admission
        self._due = world.clock.now
        self._over = False
        self._job: Job | None = None
        self._ticket: Ticket | None = None
        self._mark = 0
        self._sent = 0
        world.clock.after(stream.patience, self._give_up)
        mark = admission.enter(stream.priority, self._due)
        if mark >= 0:
            self._send(mark)
            return
        deadline = self._due + int(stream.deadline)
        self._ticket = Ticket(stream.priority, stream.name.encode(), self._due, deadline, self.wake)
        if not admission.wait(self._ticket, self._due):
            self._end("refused")

    def wake(self) -> bool:
        assert self._ticket is not None
        if self._over:
            return False
        if self._ticket.reason >= 0:
            self._end("refused")
        else:
            self._send(self._ticket.mark)
        return True

    def _send(self, mark: int) -> None:
        self._mark, self._sent = mark, self._world.clock.now
        self._job = Job(self._answered, self._stream.service if isinstance(self._stream, Loop) else 0.0)
        self._world.clock.after(self._world.way(), self._world.backend.submit, self._job)

    def _answered(self, outcome: Outcome) -> None:
        self._world.clock.after(self._world.way(), self._back, outcome)

    def _back(self, outcome: Outcome) -> None:
        if not self._over:
            self._end("ok" if outcome is Outcome.SUCCESS else "refused")
            self._release(outcome)

    def _give_up(self) -> None:
        if self._over:
            return
        self._end("timeout")
        if self._job is not None:
            self._job.gone = True
            self._release(Outcome.IGNORE)
        elif self._ticket is not None:
            self._admission.leave(self._ticket, self._world.clock.now)

    def _release(self, outcome: Outcome) -> None:
        now = self._world.clock.now
        self._admission.release(self._mark, now - self._sent, outcome, now)

    def _end(self, how: str) -> None:
        self._over = True
        world, stream = self._world, self._stream
        world.rows.append(Row(self._due, stream.name, world.clock.now - self._due, how))
        if isinstance(stream, Loop):
            world.clock.after(200 * MS if how == "refused" else stream.think, world.ask, stream)
