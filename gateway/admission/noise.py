"""How far blocks of answers differ though nothing has changed, and so when one that differs shows a change.

There are two sources: the answers within a block differ from one another, and blocks differ beyond that, for reasons
that all of their answers share (a machine that stood still, a batch that began late). The larger of the two is what a
block's mean is off by. All of it is relative: differences of logarithms.
"""

from __future__ import annotations

import math
from typing import Final

FIRST: Final = 0.05  # relative error of a block's mean before it was seen
QUIET: Final = 0.004  # the least error believed in
JUMP: Final = 0.1  # change of the latency that is no noise, if it is also four errors
WEIGHT: Final = 12.0  # blocks: older ones fade


class Noise:
    """Of the blocks of one limit."""

    __slots__ = ("_astray", "_between", "_blocks", "_doubted", "_within")

    def __init__(self) -> None:
        self._between = FIRST  # of a block's mean: from one block to the next,
        self._within = 0.0  # and by the samples in it
        self._blocks = 2.0
        self._astray = 0  # blocks in a row that were off to the same side; below 0: slower
        self._doubted = False  # the last block was left out

    @property
    def size(self) -> float:
        """The error of one block's mean."""
        return max(self._between, self._within)

    def error(self, blocks: int, others: int) -> float:
        """Of the difference between the means of so many blocks each."""
        return self.size * math.sqrt(1 / blocks + 1 / others)

    def spread(self, within: float) -> None:
        """The relative error of a block's mean by its samples."""
        self._within += (within - self._within) / 4 if self._within else within

    def differed(self, off: float, others: int) -> None:
        """A block was `off` the mean of so many others, and nothing had changed. One that is far off teaches little: it
        may be the beginning of a change.
        """
        self._blocks = min(WEIGHT, self._blocks + 1)
        known = self._between * self._between
        variance = min(off * off / (1 + 1 / others), 9 * known)
        self._between = math.sqrt(max(QUIET**2, known + (variance - known) / self._blocks))

    def far(self, off: float, error: float) -> bool:
        """Whether a block is further off than noise makes it: it, or the moment, was another."""
        return abs(off) > max(JUMP, 4 * error)

    def doubtful(self, off: float, error: float) -> bool:
        """Whether to leave a block out that shows no change, for the next one to say what it was. Never two in a row:
        where blocks are far off to this side and that, this is the noise.
        """
        self._doubted = not self._doubted and self.far(off, error)
        return self._doubted

    def jumped(self, off: float, error: float) -> bool:
        """Whether a block that is `off` shows a change: by far twice in a row, or by some to the same side three times.
        Not once: what stops a whole machine for a moment is in one block, and in all of its samples.
        """
        if abs(off) <= JUMP / 2 or abs(off) <= 2 * error:
            self._astray = 0
            return False
        side = 1 if off > 0 else -1
        self._astray = self._astray + side if self._astray * side > 0 else side
        return abs(self._astray) >= (2 if self.far(off, error) else 3)

    def settle(self) -> None:
        """What was off before is of no interest: a search begins."""
        self._astray = 0
        self._doubted = False
