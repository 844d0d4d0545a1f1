"""Whether answers take longer because more is in flight: the onset of queueing in the backend.

Nothing is held back here: every answer tells how many were in flight when its request was sent, and how long it took.
In a backend that has room the one does not depend on the other; in one that is full, twice as many take twice as long.
So the means of ln(latency) by octaves of the number in flight, compared, give the elasticity of throughput,
1 - d ln R / d ln L, between any two levels that the pool's own traffic has visited. The mean of logarithms is robust to
a few that take ten times as long. Where clients ask again as soon as they are answered there is only one level: then
answers that take longer than before with as many in flight are a reason for suspicion, and where nothing has spoken for
either side for long, so is curiosity.

It is a suspicion and not yet a finding: with a steady rate of arrivals a backend that is slow for another reason has
more in flight, too (Little's law read backwards), and so has one that is asked for longer work by more clients. Whoever
acts on it compares what then happens, and says so if it was `unfounded`: the next suspicion waits for longer each time.

Sources: J. Little 1961; L. Kleinrock 1979 on the knee; B. Welford 1962. Times are nanoseconds.
"""

from __future__ import annotations

import math
from typing import Final

OCTAVES: Final = 24
FEWEST: Final = 4  # samples in an octave that is compared
MEMORY: Final = 64  # samples: older ones fade
APART: Final = 0.5  # least distance in ln(in flight)
RECENT: Final = 8  # samples, after two rounds of what is in flight: a jump has then come to its end
JUMP: Final = math.log(1.5)
HALF: Final = math.log(2)  # of what there was is tried, or more
FULL: Final = 0.4  # elasticity, with its error, under which a backend has no room
CERTAIN: Final = 2.0  # standard errors
SURELY: Final = 3.0
SHRINKS: Final = -0.5  # elasticity below which it is other work, not a queue: that costs no throughput
CURIOUS: Final = 32  # latencies without a suspicion; more after each one that was unfounded
SEVERAL: Final = 16  # latencies
STEADY: Final = 0.25  # variance of ln(in flight) to that of Poisson arrivals: less is clients that wait for answers
ALIKE: Final = 2.0  # variance of ln(latency), of answers of one kind: exponential ones have 1.6
SOONEST: Final = 1_000_000_000  # until the next suspicion after one that was unfounded
LATEST: Final = 64_000_000_000


class Octave:
    """What was seen with twice as many in flight as in the octave below: means and variance of logarithms."""

    __slots__ = ("count", "inflight", "raised", "recent", "took", "variance")

    def __init__(self) -> None:
        self.count = 0
        self.inflight = 0.0
        self.took = 0.0
        self.raised = 0  # samples in a row that say that it takes longer now, and are not in the means
        self.recent = 0.0  # `took` of the last of them
        self.variance = 0.0

    def add(self, inflight: float, took: float) -> None:
        # Answers that spread are not told from a jump one by one, and without the longer ones the mean would sink.
        if self.count >= MEMORY // 2 and took - self.took > max(JUMP, CERTAIN * math.sqrt(self.variance)):
            self.recent += (took - self.recent) / min(RECENT, self.raised + 1)
            self.raised += 1
            return
        self.raised = 0
        self.count = min(MEMORY, self.count + 1)
        part = 1.0 / self.count
        self.inflight += (inflight - self.inflight) * part
        off = took - self.took
        self.took += off * part
        self.variance += (off * off * (1.0 - part) - self.variance) * part

    def jumped(self, inflight: int) -> bool:
        """Whether of late with as many in flight an answer certainly takes longer."""
        if self.raised < RECENT + 2 * inflight:
            return False
        return self.recent - self.took > max(JUMP, SURELY * math.sqrt(self.variance / RECENT))


class Onset:
    """One per limit that has not been learnt."""

    __slots__ = (
        "_began",
        "_last",
        "_length",
        "_level",
        "_next",
        "_octaves",
        "_pause",
        "_sways",
        "_variance",
        "enough",
        "throughput",
    )

    def __init__(self) -> None:
        self._octaves = [Octave() for _ in range(OCTAVES)]
        self._pause = SOONEST
        self._next = 0
        self._began = 0  # with what is known
        self._length = 0.0  # mean and variance of ln(latency), of all answers
        self._variance = 0.0
        self._level = 0.0  # and of ln(in flight)
        self._sways = 1.0
        self._last = 0
        # of the last suspicion:
        self.enough = 0  # so many in flight bring as much
        self.throughput = 0.0  # ln(answers per nanosecond)

    def seen(self, inflight: int, took: int, now: int) -> bool:
        """One answer. Whether the backend is suspected to be full; `enough` and `throughput` are then set."""
        place = min(OCTAVES, inflight.bit_length()) - 1
        top = self._octaves[place]
        level, length = math.log(inflight), math.log(took)
        top.add(level, length)
        off = length - self._length
        self._length += off / MEMORY
        self._variance += (off * off - self._variance) / MEMORY
        # What is in flight changes slowly: whether it sways is told by several latencies, whatever answers they have.
        part = min(1.0, (now - self._last) / math.exp(self._length or length)) / SEVERAL
        self._last = now
        off = level - self._level
        self._level += off * part
        self._sways += (off * off - self._sways) * part
        self._began = self._began or now
        if top.count < FEWEST or now < self._next:
            return False
        if top.jumped(inflight):
            self.enough = max(1, round(math.exp(top.inflight - min(top.recent - top.took, HALF))))
            self.throughput = top.inflight - top.recent
            return True
        for below in range(place - 1, -1, -1):
            low = self._octaves[below]
            if low.count < FEWEST or top.inflight - low.inflight < APART:
                continue
            share = top.inflight - low.inflight
            elasticity = 1.0 - (top.took - low.took) / share
            error = CERTAIN * math.sqrt(top.variance / top.count + low.variance / low.count) / share
            if elasticity + error < SHRINKS:
                return False
            if elasticity + error < FULL and elasticity > SHRINKS:
                self.enough = max(1, round(math.exp(max(low.inflight, top.inflight - HALF))))
                self.throughput = top.inflight - top.took
                return True
        return False

    def curious(self, inflight: int, latency: float, now: int) -> bool:
        """Whether it is time to see whether half of that would do as well; `enough` and `throughput` are then set."""
        if now < self._next or now - self._began < CURIOUS * latency * (self._pause // SOONEST):
            return False
        top = self._octaves[min(OCTAVES, inflight.bit_length()) - 1]
        if top.count < MEMORY // 2 or self._variance > ALIKE or self._sways * inflight > STEADY:
            return False
        self.enough = max(1, round(math.exp(top.inflight - HALF)))
        self.throughput = top.inflight - top.took
        return True

    def listens(self, now: int) -> bool:
        """Whether a suspicion is welcome again after one that was unfounded."""
        return now >= self._next

    def founded(self) -> None:
        """The last suspicion was right."""
        self._pause = SOONEST
        self.forget()

    def unfounded(self, now: int) -> None:
        """The last suspicion was wrong, and what it came from is worth nothing."""
        self._next = now + self._pause
        self._pause = min(LATEST, 2 * self._pause)
        self.forget()

    def forget(self) -> None:
        """Begins anew."""
        self._octaves = [Octave() for _ in range(OCTAVES)]
        self._began = 0
