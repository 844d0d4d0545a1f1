"""What a backend itself refuses (429, 503), and whether that is because of how much it is given.

A backend with a bound of its own refuses at once what is over it, so the places never fill and nothing can be learnt
from latencies. The limit then comes down to what was in flight when it refused. Refusals that come with as many in
flight as answers do have another reason (a quota, a model that is not loaded) and count for nothing; so, for a while,
do those that a lower limit did not halve: it goes back then.
"""

from __future__ import annotations

from typing import Final

WINDOW: Final = 16  # answers, or twice the limit
MANY: Final = 0.1  # share of the answers
MOSTLY: Final = 0.5  # share of the answers with as many in flight as its refusals had, or more
DEAF: Final = 64  # windows


class Refusals:
    """One per limit."""

    __slots__ = ("_answered", "_before", "_deaf", "_refused", "_share", "outstanding")

    def __init__(self) -> None:
        self._answered: list[int] = []  # how many were in flight when one was answered
        self._refused: list[int] = []  # and refused
        self._share = 0.0  # when the limit was last brought down
        self._before = 0  # the limit as it was before that; 0: it was not
        self._deaf = 0
        self.outstanding = 0  # answers to what was sent before the limit was last changed

    def seen(self, refused: bool, inflight: int, limit: int) -> int:
        """One answer, while so many were in flight: the limit that it should be from now on, or 0."""
        if self.outstanding:
            self.outstanding -= 1
            return 0
        (self._refused if refused else self._answered).append(inflight)
        count = len(self._answered) + len(self._refused)
        if count < WINDOW or count < 2 * limit:
            return 0
        share, at = len(self._refused) / count, sorted(self._refused)
        least = at[len(at) // 4] if at else 0  # a few were others' fault
        above = 0
        for each in self._answered:
            above += each >= least
        self._answered, self._refused = [], []
        if self._deaf:
            self._deaf -= 1
            return 0
        if share <= MANY:
            self._before = 0
            return 0
        if self._before and share > self._share / 2:
            before, self._before = self._before, 0
            self._deaf = DEAF
            self.outstanding = inflight
            return before
        if least <= 1 or len(at) < MOSTLY * (len(at) + above):
            return 0
        if not self._before:
            self._before = limit
        self._share = share
        self.outstanding = inflight
        return min(least, limit) - 1
