"""What a backend itself refuses (429, 503), and whether that is because of how much it is given.

A backend with a bound of its own refuses at once what is over it, so the places never fill and nothing can be learnt
from latencies. The limit then comes down to what was in flight when it refused. Where that does not halve its refusals,
they have another reason (a quota, a model that is not loaded): the limit goes back, and for a while they count for
nothing.
"""

from __future__ import annotations

from typing import Final

WINDOW: Final = 16  # answers, or twice the limit
MANY: Final = 0.1  # share of the answers
DEAF: Final = 64  # windows


class Refusals:
    """One per limit."""

    __slots__ = ("_answers", "_before", "_deaf", "_least", "_refused", "_share", "outstanding")

    def __init__(self) -> None:
        self._answers = 0
        self._refused = 0
        self._share = 0.0  # when the limit was last brought down
        self._before = 0  # the limit as it was before that; 0: it was not
        self._deaf = 0
        self._least = 0  # in flight when one was refused
        self.outstanding = 0  # answers to what was sent before the limit was last changed

    def seen(self, refused: bool, inflight: int, limit: int) -> int:
        """One answer, while so many were in flight: the limit that it should be from now on, or 0."""
        if self.outstanding:
            self.outstanding -= 1
            return 0
        self._answers += 1
        if refused:
            self._refused += 1
            self._least = min(self._least, inflight) if self._least else inflight
        if self._answers < WINDOW or self._answers < 2 * limit:
            return 0
        share, least = self._refused / self._answers, self._least
        self._answers = self._refused = self._least = 0
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
        if least <= 1:
            return 0
        if not self._before:
            self._before = limit
        self._share = share
        self.outstanding = inflight
        return min(least, limit) - 1
