"""Drawing by share: prefix sums and bisection, O(log n) a draw."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from gateway.balance.policy import Candidate, Rand


class Draw:
    """Of candidates with a share above zero, by `rand`. Made anew when a share changes."""

    __slots__ = ("_rand", "_sums", "_total", "candidates", "mean")

    def __init__(self, members: Sequence[Candidate], rand: Rand) -> None:
        self._rand = rand
        self.candidates: list[Candidate] = [member for member in members if member.share > 0.0]
        self._sums: list[float] = list(accumulate([candidate.share for candidate in self.candidates]))
        self._total: float = self._sums[-1] if self._sums else 0.0
        self.mean: float = self._total / max(len(self._sums), 1)

    def any(self) -> int:
        """The index of a candidate; there must be one."""
        return min(bisect_right(self._sums, self._rand() * self._total), len(self._sums) - 1)

    def other(self, than: int) -> int:
        """The index of another candidate, drawn among those that are left; there must be two."""
        share = self.candidates[than].share
        at = self._rand() * (self._total - share)
        end = self._sums[than]
        if at >= end - share:
            at += share
        found = min(bisect_right(self._sums, at), len(self._sums) - 1)
        if found == than:  # rounding
            found = than + 1 if than + 1 < len(self._sums) else than - 1
        return found

    def without(self, tried: Sequence[Candidate]) -> Draw:
        """The same, but for those that were tried: for the rare pick that is a second one."""
        return Draw([candidate for candidate in self.candidates if candidate not in tried], self._rand)
