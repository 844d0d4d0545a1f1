"""A pool's places and who gets them: the limit and the queue joined, in two steps.

    mark = admission.enter(priority, now)        # >= 0: a place was free
    if mark < 0:
        admission.wait(ticket, now)              # True: `ticket.wake` is called once, with a place or a refusal
    ...
    admission.release(mark, took, outcome, now)  # the place goes to who waits longest, or most urgently

Invariants: `inflight` is the number of places taken and not released; no place is free while somebody waits; whoever
cannot be answered in time is refused when it comes, or as soon as that is clear, and never sent.

Standing overload of a priority is when in the last `BUCKETS` buckets (the time of `BUCKET` answers each) more has come
of it and of what goes before it than the pool answers, evenly, and the backlog is long; a burst, however large, is
none. It ends when less comes than is answered.

Times are monotonic nanoseconds.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from gateway.admission.adaptive import AdaptiveLimit
from gateway.admission.limit import Limit
from gateway.admission.places import Places, alone
from gateway.admission.queue import BURST, LATE, PRIORITIES, Queue, Ticket
from gateway.request import Outcome

BUCKETS: Final = 4
BUCKET: Final = 50  # answers
SHORTEST: Final = 62_500_000  # of a bucket
LONGEST: Final = 2_500_000_000
FIRST: Final = 250_000_000  # while the rate is not known
BEGINS: Final = 1.05  # offered over answered
ENDS: Final = 0.95
EVEN: Final = 0.6  # in every bucket, or it comes in bursts
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
        self._served = 0  # when one that waits last got a place, or the first began to wait
        self._offered = [[0] * BUCKETS for _ in PRIORITIES]
        self._bucket = 0
        self._ends = 0  # of the bucket
        self._width = FIRST

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
            if settings.places or not isinstance(before, AdaptiveLimit):
                self.limit = self._limit(gateways)
                self.limit.latency, self.limit.spread, self.limit.rate = before.latency, before.spread, before.rate
            else:
                before.bounded(settings.most * self.places.workers, settings.target)
            self.queue.most = settings.waiting
        if isinstance(self.limit, AdaptiveLimit):
            self.limit.gateways = max(1, gateways)
        self.sweep(now)

    # -- coming ---------------------------------------------------------------------------------------------------

    def enter(self, priority: int, now: int) -> int:
        """A place's mark (>= 0), or -1 where none is free."""
        if now >= self._ends:
            self._turn(now)
        self._offered[priority][self._bucket] += 1
        self.limit.follow()
        if self.queue.size or not self.places.free(self.limit.allowed):
            return -1
        return self._take(now)

    def _take(self, now: int) -> int:
        self.places.take()
        self.limit.own = self.places.taken
        return self.limit.sent(self.places.all, now)

    def wait(self, ticket: Ticket, now: int) -> bool:
        """Whether `ticket` waits; if not, its `reason` says why it is refused."""
        queue, limit = self.queue, self.limit
        line = queue.lines[ticket.priority]
        burst = self._burst()
        expected = 0.0
        if line.size > burst:
            limit.pressed = True
            if not line.overloaded:
                self._judge(now)
        elif not line.overloaded and line.size > self._short() and self.places.overloaded(ticket.priority):
            self._judge(now)
        elif limit.rate and not line.overloaded:
            ahead = 0
            for each in queue.lines[: ticket.priority + 1]:
                ahead += each.size
            expected = ahead * 1e9 / limit.rate
        if ticket.deadline - now < self._needed() + expected:
            return queue.deny(ticket, LATE)
        if not queue.add(ticket, now, self._short()):
            return False
        if queue.size == 1:
            self._served = now
            self.places.waits(now)
        return True

    def _burst(self) -> int:
        return BURST + self.limit.allowed

    def _long(self, priority: int) -> int:
        """A backlog that is more than a burst; or than is needed, where another worker has found it to stand."""
        return self._short() if self.places.overloaded(priority) else self._burst()

    def _short(self) -> int:
        """What may wait under standing overload: half a latency's worth."""
        return max(1, self.limit.allowed // (2 * self.places.workers))

    def _needed(self) -> int:
        """The time in which an answer cannot be expected: less than all but a few have ever taken."""
        return max(0, int(self.limit.latency - 3 * self.limit.spread))

    # -- going ----------------------------------------------------------------------------------------------------

    def release(self, mark: int, took: int, outcome: Outcome, now: int) -> None:
        """Gives a place back, `took` after it was taken; `mark` 0 where that says nothing about the pool."""
        self.places.give()
        self.limit.done(mark, took, outcome, now)
        if self.queue.size:
            self._grant(now)

    def leave(self, ticket: Ticket, now: int) -> None:
        """Whoever had this ticket has gone, with or without a place."""
        if ticket.waiting:
            self.queue.remove(ticket)
            self._tell()
        elif ticket.mark >= 0:
            self.release(0, 0, Outcome.IGNORE, now)

    def sweep(self, now: int) -> None:
        """To be called every few milliseconds while somebody waits."""
        if now >= self._ends:
            self._turn(now)
        if self.queue.size:
            self.limit.tick(now)
        self.queue.sweep(now, self._needed(), max(SHORTEST // 2, int(self.limit.latency)))
        self._grant(now)
        self._tell()

    def _tell(self) -> None:
        self.places.waits(self._served if self.queue.size else 0)

    def _grant(self, now: int) -> None:
        queue, limit = self.queue, self.limit
        limit.follow()
        while queue.size and self.places.free(limit.allowed):
            ticket = queue.next(now, self._needed(), self._burst())
            if ticket is None:
                break
            ticket.mark = self._take(now)
            if ticket.wake():
                self._served = now
            else:
                ticket.mark = -1
                self.places.give()
            self._tell()

    # -- standing overload ----------------------------------------------------------------------------------------

    def _turn(self, now: int) -> None:
        """The next bucket."""
        self._judge(now)
        passed = BUCKETS if not self._ends else min(BUCKETS, 1 + (now - self._ends) // self._width)
        for _ in range(passed):
            self._bucket = (self._bucket + 1) % BUCKETS
            for offered in self._offered:
                offered[self._bucket] = 0
        self.limit.pressed = self.queue.size > self._burst() or bool(self.overloaded)
        rate = self.limit.rate
        self._width = min(LONGEST, max(SHORTEST, int(BUCKET * 1e9 / rate))) if rate else FIRST
        self._ends = now + self._width

    def _judge(self, now: int) -> None:
        answered = self.limit.rate * self._width / 1e9  # in a bucket
        if not answered:
            for line in self.queue.lines:
                line.overloaded = False  # nothing is known any more
            self.places.tell_overload([])
            return
        parts = BUCKETS - max(0, self._ends - now) / self._width
        offered = [0] * BUCKETS  # of this priority and those before it
        for counts, line in zip(self._offered, self.queue.lines):  # noqa: B905 - equal by construction
            for bucket in range(BUCKETS):
                offered[bucket] += counts[bucket]
            steady = min(offered) / answered
            if line.overloaded:
                line.overloaded = sum(offered) > ENDS * answered * parts
            elif steady < EVEN:
                continue  # it comes in bursts
            elif sum(offered) > BEGINS * answered * parts and line.size > self._long(line.priority):
                line.overloaded = True
                self.queue.shed(line, self._short())
        self.places.tell_overload([line.overloaded for line in self.queue.lines])

    @property
    def overloaded(self) -> list[str]:
        """The priorities under standing overload."""
        return [name for name, line in zip(PRIORITIES, self.queue.lines, strict=True) if line.overloaded]

    def retry_after(self, priority: int) -> int:
        """Seconds after which a refused client may hope for an answer: what is offered over what is answered, for if it
        asks once a second that is how many times it is refused; and no less than the backlog takes.
        """
        rate = self.limit.rate
        if not rate:
            return 1
        offered = 0
        for counts in self._offered[: priority + 1]:
            offered += sum(counts)
        ratio = offered / (rate * self._width / 1e9 * (BUCKETS - 1))
        return max(1, min(LONGEST_AWAY, round(max(ratio, self.queue.size / rate))))

    def __repr__(self) -> str:
        return f"<Admission {self.inflight} of {self.limit.allowed} places taken, {self.queue!r}>"
