"""A pool's places as all workers of a gateway see them, in memory that they share.

The limit is the pool's, not a worker's, and so are the priorities, the backlog and the rate of answers. Every worker
writes what it has taken, who waits in it and how much has come, and reads that of the others: a number that is a moment
old costs at most a request too many. A free place is for the worker that waits with the highest priority; of those for
the one that was served longest ago with that priority; where there are more places than workers before it, a worker
does not wait for its turn. Whoever leaves a place to another
worker rings its `bell`. One of the workers, the leader, learns the limit and writes it for all; one that has learnt
nothing for a while is followed by any other that has requests.

A worker that stands still is waited for by nobody: who waits in it counts for nothing after `STILL`, and what it has
taken neither after `GONE`.

Memory is `COMMON` integers per pool, and then columns with one integer for each worker. Times are nanoseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gateway.admission.queue import PRIORITIES, Line

COMMON: Final = 8
LEADER: Final = 0  # the worker's number and 1
LEVEL: Final = 1  # the limit; below 0: not learnt, and nothing speaks against more
HEARD: Final = 2  # when the leader last learnt something
PACE: Final = 3  # from one answer to the next while all places are taken, in 1/FINE ns
PACED: Final = 4  # answers that this was seen in, up to STEADY

TAKEN: Final = 0  # the columns
BEAT: Final = 1  # when it last showed that it runs
OVER: Final = 2  # the priorities that it finds to be in standing overload, a bit for each
SINCE: Final = 3  # a column for each priority: when one of it was last served, or began to wait; 0: nobody waits
WAITING: Final = SINCE + len(PRIORITIES)  # how many wait
OFFERED: Final = WAITING + len(PRIORITIES)  # how many have come, ever
ANSWERED: Final = OFFERED + len(PRIORITIES)  # how many were answered, ever
COLUMNS: Final = ANSWERED + 1

STILL: Final = 100_000_000
GONE: Final = 1_000_000_000
FINE: Final = 1000
STEADY: Final = 64  # answers: the weight of one in the pace is a share of so many


def _silence(number: int) -> None:
    """The bell of those who look often enough."""
    del number


class Places:
    """Of the pool whose memory begins at `first`, for worker `number` of so many `workers`."""

    __slots__ = (
        "_answered", "_beats", "_common", "_held", "_memory", "_offered", "_over", "_own", "_resumed", "_silent",
        "_since", "_taken", "_waiting", "bell", "number", "taken", "workers",
    )  # fmt: skip

    def __init__(self, memory: memoryview, first: int = 0, number: int = 0, workers: int = 1) -> None:
        columns = [
            memory[begin : begin + workers]
            for begin in range(first + COMMON, first + COMMON + COLUMNS * workers, workers)
        ]
        self._memory = memory
        self._common = first
        self._own = first + COMMON + number
        self._taken, self._beats, self._over = columns[:SINCE]
        since = first + COMMON + SINCE * workers
        self._since = memory[since : since + len(PRIORITIES) * workers]
        self._waiting = columns[WAITING:OFFERED]
        self._offered = columns[OFFERED:ANSWERED]
        self._answered = columns[ANSWERED]
        self._silent = 0  # places of workers that stand still
        self._held = 0  # nanoseconds that places were taken for without an answer, since the last one
        self._resumed = 0  # when the last stall ended
        self.bell: Callable[[int], None] = _silence  # of the worker with that number
        self.number = number
        self.workers = workers
        self.clear()

    @staticmethod
    def width(workers: int) -> int:
        """Integers that a pool needs."""
        return COMMON + COLUMNS * workers

    @staticmethod
    def memory(workers: int, pools: int = 1) -> memoryview:
        """For workers that live in one process."""
        return memoryview(bytearray(8 * pools * Places.width(workers))).cast("q")

    def _write(self, column: int, value: int) -> None:
        self._memory[self._own + column * self.workers] = value

    # -- taking and giving ----------------------------------------------------------------------------------------

    def take(self) -> None:
        self._set(self.taken + 1)

    def give(self) -> None:
        self._set(self.taken - 1)

    def _set(self, taken: int) -> None:
        self.taken = taken
        self._write(TAKEN, taken)

    def move(self, other: Places) -> None:
        """What is taken of the others is taken of these instead."""
        if other is not self:
            self._set(self.taken + other.taken)
            other.clear()

    def clear(self) -> None:
        """The worker has ended. What has come to it has come."""
        self._set(0)
        for column in range(OVER, OFFERED):
            self._write(column, 0)

    def beat(self, now: int) -> None:
        """The worker runs. Looks who else does."""
        if self.workers == 1:
            return
        self._write(BEAT, now)
        silent = 0
        for number, beat in enumerate(self._beats):
            if number != self.number and now - beat > GONE:
                silent += self._taken[number]
        self._silent = silent

    @property
    def all(self) -> int:
        """The places that all workers have taken."""
        if self.workers == 1:
            return self.taken
        total: int = sum(self._taken)
        return total - self._silent

    def room(self, limit: int, priority: int, now: int) -> int:
        """How many places are taken, if this worker may take another for one of that priority; else -1."""
        taken = self.all
        if taken >= limit:
            return -1
        if self.workers > 1 and any(self._since):
            since = self._since[priority * self.workers + self.number] or now
            if limit - taken <= len(self._ahead(priority, since, now)):
                return -1
        return taken

    def pass_on(self, limit: int, now: int) -> None:
        """Rings for the worker that is first, if there is a place and it is another."""
        if self.workers > 1 and any(self._since) and self.all < limit:
            lowest = len(PRIORITIES) - 1
            waiting = self._ahead(lowest, now, now)
            if waiting:
                self.bell(min(waiting)[2])

    def _ahead(self, priority: int, since: int, now: int) -> list[tuple[int, int, int]]:
        """The other workers that come before one that has waited since then with that priority: what each wants a place
        for, since when, and its number.
        """
        ahead = []
        beats, began = self._beats.tolist(), self._since.tolist()
        for number in range(self.workers):
            if number == self.number or now - beats[number] > STILL:
                continue
            for wants in range(priority + 1):
                at = began[wants * self.workers + number]
                if at:
                    if wants < priority or at < since:
                        ahead.append((wants, at, number))
                    break
        return ahead

    # -- the backlog ----------------------------------------------------------------------------------------------

    def waits(self, since: list[int], lines: list[Line]) -> None:
        """Who waits here, and for each priority since when."""
        if self.workers > 1:
            for line in lines:
                self._write(SINCE + line.priority, since[line.priority] if line.size else 0)
                self._write(WAITING + line.priority, line.size)

    @property
    def waited(self) -> bool:
        """Whether anybody waits in a worker."""
        return any(self._since)

    def waiting(self, priority: int) -> int:
        """How many wait in other workers with this priority."""
        total: int = sum(self._waiting[priority])
        return total - self._waiting[priority][self.number]

    def offer(self, priority: int) -> None:
        """One has come."""
        self._memory[self._own + (OFFERED + priority) * self.workers] += 1

    def offered(self, priority: int) -> int:
        """How many have come, to all workers, ever."""
        total: int = sum(self._offered[priority])
        return total

    def answer(self) -> None:
        """One was answered."""
        self._memory[self._own + ANSWERED * self.workers] += 1

    @property
    def answered(self) -> int:
        """How many were answered, by all workers, ever."""
        total: int = sum(self._answered)
        return total

    def tell_overload(self, priorities: int) -> None:
        """Which of them this worker finds to be in standing overload, a bit for each."""
        self._write(OVER, priorities)

    def overload(self, now: int) -> int:
        """Which of them the other workers do."""
        found = 0
        if self.workers > 1 and any(self._over):
            for number in range(self.workers):
                if number != self.number and now - self._beats[number] <= GONE:
                    found |= self._over[number]
        return found

    # -- the rate of answers --------------------------------------------------------------------------------------

    def resume(self, now: int) -> None:
        """An answer, after a long time without any: what that has held up tells nothing of the rate."""
        self._resumed, self._held = now, 0

    def paced(self, took: int, answered: bool, limit: int, now: int) -> None:
        """One of `limit` places, all taken, was given back. By Little's law an answer takes the time that it and those
        that were given up before it took, over the number of places.
        """
        if now - took < self._resumed:
            return
        self._held += took
        if not answered:
            return
        pace, self._held = self._held * FINE // limit, 0
        memory, common = self._memory, self._common
        seen = min(STEADY, memory[common + PACED] + 1)
        before = memory[common + PACE]
        memory[common + PACE] = before + (pace - before) // seen
        memory[common + PACED] = seen

    @property
    def rate(self) -> float:
        """Answers per second while all places are taken; 0: not known."""
        pace = self._memory[self._common + PACE]
        return 1e9 * FINE / pace if pace > 0 and self._memory[self._common + PACED] else 0.0

    def forget_pace(self) -> None:
        self._memory[self._common + PACED] = self._memory[self._common + PACE] = 0

    # -- who learns -----------------------------------------------------------------------------------------------

    @property
    def leads(self) -> bool:
        leader: int = self._memory[self._common + LEADER]
        return self.workers == 1 or leader == self.number + 1

    @property
    def led(self) -> bool:
        """Whether some worker has ever led."""
        leader: int = self._memory[self._common + LEADER]
        return leader != 0

    def lead(self) -> None:
        self._memory[self._common + LEADER] = self.number + 1

    @property
    def heard(self) -> int:
        heard: int = self._memory[self._common + HEARD]
        return heard

    @property
    def level(self) -> int:
        level: int = self._memory[self._common + LEVEL]
        return level

    def tell(self, level: int) -> None:
        """The leader's: the limit from now on."""
        self._memory[self._common + LEVEL] = level

    def hear(self, now: int) -> None:
        """The leader's: it has learnt something."""
        self._memory[self._common + HEARD] = now


def alone() -> Places:
    """Of a worker that shares them with nobody."""
    return Places(Places.memory(1))
