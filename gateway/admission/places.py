"""A pool's places as all workers of a gateway see them, in memory that they share.

The limit is the pool's, not a worker's. Every worker writes how many places it has taken and since when it waits for
another, and reads those of the others: a number that is a moment old costs at most a request too many. A free place is
for whoever comes, but while others wait nobody takes more than its part of them, and the odd place is for the worker
that has waited for longest. One of the workers, the leader, learns the limit and writes it for all; one that has learnt
nothing for a while is followed by any other that has requests.

Memory is one row of `ROW` integers per pool for all workers, and one for each of them.
"""

from __future__ import annotations

from typing import Final

ROW: Final = 4
TAKEN: Final = 0  # in a worker's row
WAITS: Final = 1  # since when, in nanoseconds; 0: nobody does
OVER: Final = 2  # the priorities under standing overload, a bit for each
LEADER: Final = 0  # in the common row: the worker's number and 1
LEVEL: Final = 1  # the limit; below 0: not learnt, and nothing speaks against more
HEARD: Final = 2  # when the leader last learnt something, in nanoseconds


class Places:
    """Of the pool whose rows begin at `first`, for worker `number` of so many `workers`."""

    __slots__ = ("_common", "_first", "_memory", "_own", "number", "taken", "workers")

    def __init__(self, memory: list[int] | memoryview, first: int = 0, number: int = 0, workers: int = 1) -> None:
        self._memory = memory
        self._common = first
        self._first = first + ROW
        self._own = first + ROW * (1 + number)
        self.number = number
        self.workers = workers
        self.clear()

    @staticmethod
    def width(workers: int) -> int:
        """Integers that a pool needs."""
        return ROW * (1 + workers)

    def take(self) -> None:
        self._set(self.taken + 1)

    def give(self) -> None:
        self._set(self.taken - 1)

    def _set(self, taken: int) -> None:
        self.taken = taken
        self._memory[self._own + TAKEN] = taken

    def move(self, other: Places) -> None:
        """What is taken of the others is taken of these instead."""
        if other is not self:
            self._set(self.taken + other.taken)
            other.clear()

    def clear(self) -> None:
        """The worker has ended."""
        self._set(0)
        self.waits(0)
        self.tell_overload([])

    def waits(self, since: int) -> None:
        """Somebody waits here since then; 0: nobody."""
        self._memory[self._own + WAITS] = since

    @property
    def all(self) -> int:
        """The places that all workers have taken."""
        if self.workers == 1:
            return self.taken
        total = 0
        for row in range(self._first, self._first + ROW * self.workers, ROW):
            total += self._memory[row + TAKEN]
        return total

    def free(self, limit: int) -> bool:
        """Whether this worker may take a place."""
        if self.workers == 1:
            return self.taken < limit
        memory, own = self._memory, self._own
        total = self.taken
        busy = 1
        waiting = False
        for row in range(self._first, self._first + ROW * self.workers, ROW):
            if row == own:
                continue
            taken, waits = memory[row + TAKEN], memory[row + WAITS]
            total += taken
            busy += taken > 0 or waits > 0
            waiting = waiting or waits > 0
        if total >= limit:
            return False
        part, odd = divmod(limit, busy)
        return not waiting or self.taken < part or (odd > 0 and self.taken == part and self._next(part))

    def _next(self, part: int) -> bool:
        """Whether no other worker that has no more than its part has waited for longer."""
        memory, own = self._memory, self._own
        since = memory[own + WAITS]
        for row in range(self._first, self._first + ROW * self.workers, ROW):
            waits = memory[row + WAITS]
            if row != own and waits and memory[row + TAKEN] <= part and not 0 < since <= waits:
                return False
        return True

    def tell_overload(self, priorities: list[bool]) -> None:
        """Which of them this worker finds to be in standing overload."""
        over = 0
        for priority, overloaded in enumerate(priorities):
            over |= int(overloaded) << priority
        self._memory[self._own + OVER] = over

    def overloaded(self, priority: int) -> bool:
        """Whether another worker finds this one to be."""
        for row in range(self._first, self._first + ROW * self.workers, ROW):
            if row != self._own and self._memory[row + OVER] >> priority & 1:
                return True
        return False

    # -- who learns ---------------------------------------------------------------------------------------------

    @property
    def leads(self) -> bool:
        return self.workers == 1 or self._memory[self._common + LEADER] == self.number + 1

    @property
    def led(self) -> bool:
        """Whether some worker has ever led."""
        return self._memory[self._common + LEADER] != 0

    def lead(self) -> None:
        self._memory[self._common + LEADER] = self.number + 1

    @property
    def heard(self) -> int:
        return self._memory[self._common + HEARD]

    @property
    def level(self) -> int:
        return self._memory[self._common + LEVEL]

    def tell(self, level: int) -> None:
        """The leader's: the limit from now on."""
        self._memory[self._common + LEVEL] = level

    def hear(self, now: int) -> None:
        """The leader's: it has learnt something."""
        self._memory[self._common + HEARD] = now


def alone() -> Places:
    """Of a worker that shares them with nobody."""
    return Places([0] * Places.width(1))
