"""A pool's places and who gets them: the limit and the queue joined, in two steps.

    mark = admission.enter(priority, now)        # >= 0: a place was free
    if mark < 0:
        admission.wait(ticket, now)              # True: `ticket.wake` is called once, with a place or a refusal
    ...
    admission.release(mark, took, outcome, now)  # the place goes to who waits longest, or most urgently

Invariants: `inflight` is the number of places taken and not released; no place is free while somebody waits, but for
the moment until another worker has heard of it; whoever cannot be answered in time is refused when it comes, or as soon
as that is clear, and never sent.

Under standing overload (`overload.py`) hardly anybody waits: who does not fit in is refused at once.

Times are monotonic nanoseconds.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from gateway.admission.adaptive import AdaptiveLimit
from gateway.admission.limit import Limit
from gateway.admission.overload import Overload
from gateway.admission.places import Places, alone
from gateway.admission.queue import BURST, LATE, PRIORITIES, Line, Queue, Ticket
from gateway.request import Outcome

PRESSED: Final = 8  # latencies
MUCH: Final = 1.5  # offered over what can be answered
PATIENCE: Final = 62_500_000  # or two latencies, after which whoever waits in overload is refused
LONGEST_AWAY: Final = 30  # seconds that a client is told to stay away, at the most


class AdmissionSettings(NamedTuple):
    """`places`: a fixed number of them, 0 to learn it, up to `most`. `waiting`: most that may wait. `target`: see
    `AdaptiveLimit`. `shared`: the places are those of all workers; else each has as many.
    """

    places: int
    most: int
    waiting: int
    target: int
    shared: bool = True


class Admission:
    """One per pool and worker; survives reloads. So many `gateways` use the same backends, each with `places`."""

    def __init__(self, settings: AdmissionSettings, gateways: int = 1, places: Places | None = None) -> None:
        self.settings = settings
        self._alone = alone()
        self._common = places if places is not None else self._alone
        self.places = self._common if settings.shared else self._alone
        self.limit = self._limit(gateways)
        self.queue = Queue(settings.waiting)
        self._answered = 0  # when the last one was, here
        self._served = [0 for _ in PRIORITIES]  # when one of them last got a place, or the first began to wait
        self._overload = Overload(self.queue.lines, self.places)
        self._waited = 0  # since when there always was somebody who waited, in whichever worker; 0: there is not

    @property
    def inflight(self) -> int:
        """The places that this worker has taken."""
        return self.places.taken

    def _limit(self, gateways: int) -> Limit:
        settings = self.settings
        if settings.places:
            return Limit(settings.places)
        limit = AdaptiveLimit(1, settings.most * self.places.workers, settings.target, self.places)
        limit.gateways = gateways
        return limit

    def configure(self, settings: AdmissionSettings, gateways: int, now: int) -> None:
        """Takes new settings at a reload. What was learnt stays, but where a number replaces it or is replaced."""
        if settings != self.settings:
            before, self.settings = self.limit, settings
            if (places := self._common if settings.shared else self._alone) is not self.places:
                places.move(self.places)
                self.places = places
                self._overload.watch(places)
            if settings.places or not isinstance(before, AdaptiveLimit):
                self.limit = self._limit(gateways)
                self.limit.latency, self.limit.spread = before.latency, before.spread
            else:
                before.bounded(settings.most * self.places.workers, settings.target)
            self.queue.most = settings.waiting
        if isinstance(self.limit, AdaptiveLimit):
            self.limit.gateways = max(1, gateways)
        self.sweep(now)

    # -- coming ---------------------------------------------------------------------------------------------------

    def enter(self, priority: int, now: int) -> int:
        """A place's mark (>= 0), or -1 where none is free."""
        if now >= self._overload.ends:
            self._turn(now)
        self.places.offer(priority)
        self.limit.follow()
        if self.queue.size:
            return -1
        taken = self.places.room(self.limit.allowed, priority, now)
        return self._take(taken, now) if taken >= 0 else -1

    def _take(self, taken: int, now: int) -> int:
        self.places.take()
        return self.limit.sent(taken + 1, now)

    def wait(self, ticket: Ticket, now: int) -> bool:
        """Whether `ticket` waits; if not, its `reason` says why it is refused."""
        queue, line = self.queue, self.queue.lines[ticket.priority]
        if not line.overloaded and (self._long(line) or self.places.overload(now) >> ticket.priority & 1):
            self._shed(self._overload.judge(self.rate, self._burst(), now))
        expected = 0.0
        if line.overloaded or line.grows:  # the newest is served first
            self.limit.pressed = True
        elif rate := self.rate:
            ahead = 0
            for each in queue.lines[: ticket.priority + 1]:
                ahead += self._backlog(each)
            expected = ahead * 1e9 / rate
        if ticket.deadline - now < self._needed() + expected:
            return queue.deny(ticket, LATE)
        if not queue.add(ticket, now, self._short()):
            return False
        if line.size == 1:
            self._served[ticket.priority] = now
            self.places.beat(now)
        self._tell(now)
        return True

    def _backlog(self, line: Line) -> int:
        """How many of a priority wait, in all workers."""
        return line.size + self.places.waiting(line.priority)

    def _burst(self) -> int:
        """What may wait without being a backlog."""
        return BURST + self.limit.allowed

    def _long(self, line: Line) -> bool:
        return self._backlog(line) > self._burst()

    def _short(self) -> int:
        """What may wait here under standing overload: half a latency's worth; or, where less comes than `MUCH`, a whole
        one, so that a place that frees seldom finds nobody.
        """
        whole = self.limit.allowed // self.places.workers
        return max(1, whole // 2 if self._overload.ratio > MUCH else whole)

    def _needed(self) -> int:
        """The time in which an answer cannot be expected: less than all but a few have ever taken."""
        return max(0, int(self.limit.latency - 3 * self.limit.spread))

    # -- going ----------------------------------------------------------------------------------------------------

    def release(self, mark: int, took: int, outcome: Outcome, now: int) -> None:
        """Gives a place back, `took` after it was taken; `mark` and `took` are 0 where they say nothing of the pool."""
        limit, places = self.limit, self.places
        answered = outcome != Outcome.IGNORE  # which is when the client has gone, or its time was up
        if answered:
            if limit.stalled(self._answered, now):
                places.resume(now)
            self._answered = now
            places.answer()
        if took and not limit.open and places.all >= limit.allowed:
            places.paced(took, answered, limit.allowed, now)
        places.give()
        limit.done(mark, took, outcome if took else Outcome.IGNORE, now)
        if self.queue.size:
            self._grant(now)
        places.pass_on(limit.allowed, now)

    def leave(self, ticket: Ticket, now: int) -> None:
        """Whoever had this ticket has gone, with or without a place."""
        if ticket.waiting:
            self.queue.remove(ticket)
            self._tell(now)
        elif ticket.mark >= 0:
            self.release(0, 0, Outcome.IGNORE, now)

    def sweep(self, now: int) -> None:
        """To be called every few milliseconds while somebody waits, and else a few times a second."""
        self.places.beat(now)
        if now >= self._overload.ends:
            self._turn(now)
        if self.queue.size:
            self.limit.tick(now)
        self.queue.sweep(now, self._needed(), max(PATIENCE, 2 * int(self.limit.latency)))
        self._grant(now)
        self._tell(now)
        self.places.pass_on(self.limit.allowed, now)
        self.limit.pressed = self._pressed(now)

    def _tell(self, now: int) -> None:
        self._waited = (self._waited or now) if self.queue.size or self.places.waited else 0
        self.places.waits(self._served, self.queue.lines)

    def _pressed(self, now: int) -> bool:
        """Whether more is asked for than is answered: in overload, or where somebody has waited all the time."""
        if self.queue.overloaded or (self._waited and now - self._waited > PRESSED * int(self.limit.latency)):
            return True
        for line in self.queue.lines:  # noqa: SIM110 - compiled, a generator costs more
            if self._long(line):
                return True
        return False

    def _grant(self, now: int) -> None:
        queue, limit = self.queue, self.limit
        limit.follow()
        while queue.size and (taken := self.places.room(limit.allowed, queue.urgent, now)) >= 0:
            ticket = queue.next(now, self._needed())
            if ticket is None:
                break
            ticket.mark = self._take(taken, now)
            if ticket.wake():
                self._served[ticket.priority] = now
            else:
                ticket.mark = -1
                self.places.give()
            self._tell(now)

    # -- standing overload ----------------------------------------------------------------------------------------

    def _turn(self, now: int) -> None:
        self._shed(self._overload.turn(self.rate, self._burst(), now))

    def _shed(self, lines: list[Line]) -> None:
        for line in lines:
            self.queue.shed(line, self._short())

    @property
    def rate(self) -> float:
        """Answers per second of the pool while all places are taken; 0: not known."""
        return 0.0 if self.limit.open else self.places.rate

    @property
    def overloaded(self) -> list[str]:
        """The priorities under standing overload."""
        return [name for name, line in zip(PRIORITIES, self.queue.lines, strict=True) if line.overloaded]

    def retry_after(self, priority: int) -> int:
        """Seconds after which a refused client may hope for an answer: what is offered over what is answered, for if it
        asks once a second that is how many times it is refused; and no less than the backlog takes.
        """
        if not (rate := self.rate):
            return 1
        backlog = 0
        for line in self.queue.lines[: priority + 1]:
            backlog += self._backlog(line)
        return max(1, min(LONGEST_AWAY, round(max(self._overload.offered(priority), backlog / rate))))

    def __repr__(self) -> str:
        return f"<Admission {self.inflight} of {self.limit.allowed} places taken, {self.queue!r}>"
