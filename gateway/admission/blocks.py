"""What answers show of a level of requests in flight: one block of them, and the mean of several at one level.

A block is a run of answers during which the number in flight did not change. With `L` in flight and a mean latency `R`
the throughput is L / R (J. Little 1961); where answers are missing, those that came are counted instead.
"""

from __future__ import annotations

from typing import Final, NamedTuple

FEWEST: Final = 8  # samples of a block


class Block(NamedTuple):
    """What one has shown: the mean latency, ln(throughput) by latencies and by counting, whether more than a few of its
    requests were given up (`lost`), or nearly all (`hopeless`).
    """

    mean: float
    timed: float
    counted: float
    lost: bool
    hopeless: bool


class Level:
    """What blocks at one level have shown: means over `blocks` of ln(throughput), by latencies and by counting.

    `places` where it is asked for.
    """

    def __init__(self, places: int = 0) -> None:
        self.places = places
        self.blocks = 0
        self.timed = 0.0
        self.counted = 0.0
        self.lost = False

    def add(self, block: Block) -> None:
        self.blocks = min(FEWEST, self.blocks + 1)
        self.timed += (block.timed - self.timed) / self.blocks
        self.counted += (block.counted - self.counted) / self.blocks
        self.lost = block.lost
