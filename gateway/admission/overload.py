"""Whether more comes to a pool than it answers, and goes on doing so.

Standing overload of a priority is when in the last `BUCKETS` buckets (the time of `BUCKET` answers or more) more has
come of it and of what goes before it than was answered, not only in the two buckets with most, and the backlog is long.
A burst, however large, is none, nor are many clients that wait for their answers before they ask again: what they send
is what they were answered. It ends when less comes than can be answered, or when it comes in bursts.

All of this is of the pool: what comes to other workers and waits there counts, and what another worker finds holds
here, too. Times are monotonic nanoseconds.
"""

from __future__ import annotations

from typing import Final

from gateway.admission.places import Places
from gateway.admission.queue import PRIORITIES, Line

BUCKETS: Final = 5
BUCKET: Final = 30  # answers, at least
SHORTEST: Final = (
    50_000_000  # of a bucket; others are twice, four times, ... as long, so that all workers' begin at once
)
LONGEST: Final = 1_600_000_000
FIRST: Final = 200_000_000  # while the rate is not known
BEGINS: Final = 0.02  # of what is answered that more is offered
ENDS: Final = 0.95  # offered over what can be answered
EVEN: Final = 0.6  # of what can be answered, in every bucket, or it comes in bursts
GROWS: Final = 1.25  # offered over answered


class Overload:
    """As one worker sees it, with its own `lines`. `ratio`: what is offered over what can be answered; 0: not known."""

    __slots__ = (
        "_answered",
        "_bucket",
        "_expected",
        "_found",
        "_offered",
        "_places",
        "_start",
        "ends",
        "lines",
        "ratio",
    )

    def __init__(self, lines: list[Line], places: Places) -> None:
        self.lines = lines
        self.ratio = 0.0
        self.ends = 0  # of the bucket
        self._offered = [[0] * BUCKETS for _ in PRIORITIES]
        self._answered = [0] * BUCKETS
        self._bucket = 0
        self._expected = 0.0  # answers in a bucket
        self._found = 0  # the priorities that are in standing overload as seen from here, a bit for each
        self.watch(places)

    def watch(self, places: Places) -> None:
        """What is counted from now on; what was counted before stays."""
        self._places = places
        self._start = [places.offered(priority) for priority in range(len(PRIORITIES))], places.answered

    def turn(self, rate: float, burst: int, now: int) -> list[Line]:
        """Judges, and begins the next bucket; to be called when the last one `ends`."""
        began = self.judge(rate, burst, now)
        width = self._width(rate)
        passed = 1 + (now - self.ends) // width
        for _ in range(min(BUCKETS, passed)):
            self._bucket = (self._bucket + 1) % BUCKETS
            self._answered[self._bucket] = 0
            for counts in self._offered:
                counts[self._bucket] = 0
        self.watch(self._places)
        self.ends = now - now % width + width
        return began

    def _width(self, rate: float) -> int:
        if not rate:
            return FIRST
        width = SHORTEST
        while width < LONGEST and width * rate < BUCKET * 1e9:
            width *= 2
        return width

    def judge(self, rate: float, burst: int, now: int) -> list[Line]:
        """Says of every line whether it is `overloaded` or `grows`, by the answers per second that there are while all
        places are taken (0: not known) and what is no backlog. Returns the lines that have just become overloaded.
        """
        places, width = self._places, self._width(rate)
        others = places.overload(now)
        parts = BUCKETS - max(0, self.ends - now) / width
        before, answered = self._start
        self._expected = rate * width / 1e9
        self._answered[self._bucket] = places.answered - answered
        offered = [0] * BUCKETS  # of this priority and those before it
        began = []
        found = 0
        for priority, line in enumerate(self.lines):
            counts = self._offered[priority]
            counts[self._bucket] = places.offered(priority) - before[priority]
            for bucket in range(BUCKETS):
                offered[bucket] += counts[bucket]
            bit = 1 << priority
            long = line.size + places.waiting(priority) > burst
            if not self._expected or not self._steady(offered):
                stands = False
            elif self._found & bit:
                stands = sum(offered) > ENDS * self._expected * parts
            else:
                stands = long and self._exceeds(offered)
            if stands:
                found |= bit
            line.grows = long and self._grows(offered)
            if stands or others & bit:
                if not line.overloaded:
                    began.append(line)
                line.overloaded = True
            else:
                line.overloaded = False
        self.ratio = sum(offered) / (self._expected * parts) if self._expected else 0.0
        self._found = found
        places.tell_overload(found)
        return began

    def _steady(self, offered: list[int]) -> bool:
        """Whether enough came in every bucket that has ended."""
        least = EVEN * self._expected
        for bucket, came in enumerate(offered):  # noqa: SIM110 - compiled, a generator costs more
            if came < least and bucket != self._bucket:
                return False
        return True

    def _exceeds(self, offered: list[int]) -> bool:
        """Whether more comes than is answered, and that not only in one bucket, or in two that a burst fell into."""
        most = second = excess = 0
        for came, went in zip(offered, self._answered):  # noqa: B905 - equal by construction
            excess += came - went
            if came - went > most:
                most, second = came - went, most
            elif came - went > second:
                second = came - went
        return excess - most - second > BEGINS * sum(self._answered)

    def _grows(self, offered: list[int]) -> bool:
        """Whether clearly more comes than is answered, now."""
        last, this = self._bucket - 1, self._bucket
        return offered[last] + offered[this] > GROWS * (self._answered[last] + self._answered[this])

    def offered(self, priority: int) -> float:
        """What comes of this priority and those before it, over what can be answered; 0: not known."""
        if not self._expected:
            return 0.0
        came = 0
        for counts in self._offered[: priority + 1]:
            came += sum(counts)
        return came / (self._expected * (BUCKETS - 1))
