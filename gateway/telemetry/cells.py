"""Metrics as plain integers in memory that workers share with the supervisor.

The supervisor makes one block per worker and hands out series by name; a worker only adds to integers. A scrape
therefore works while a worker is busy or hung, and a worker that dies takes no counts with it.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable
from typing import Final, NamedTuple

from gateway.errors import StartError

#: Per worker: room for 16,000 routes. 32 MiB of address space, of which only touched pages cost memory.
CELLS: Final = 1 << 22

#: Upper bounds in seconds (OpenTelemetry's advice for HTTP durations, with finer steps below 10 ms).
SECONDS: Final[tuple[float, ...]] = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.075,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
)
NANOSECONDS: Final = tuple(int(bound * 1e9) for bound in SECONDS)
_LAST: Final = len(SECONDS)  # place of +Inf; the sum follows

Labels = tuple[tuple[str, str], ...]


class Metric(NamedTuple):
    """`kind` is counter, gauge, histogram, or shared: memory for the workers themselves, which nobody is told of.

    `scale` divides the integers on the way out.
    """

    name: str
    kind: str
    help: str
    scale: float = 1.0

    @property
    def width(self) -> int:
        """Cells per series: a histogram has its buckets, +Inf and the sum."""
        return len(NANOSECONDS) + 2 if self.kind == "histogram" else 1


class Catalogue:
    """Which series lives where. Append-only, so that numbers keep their meaning through reloads. Picklable."""

    def __init__(self, capacity: int = CELLS) -> None:
        self._capacity = capacity
        self._places: dict[tuple[Metric, Labels], int] = {}
        self._next = 0

    def place(self, metric: Metric, labels: Labels = (), width: int = 0) -> int:
        """The first cell of a series, allotted on first use (by the supervisor only); `width`: if not the metric's."""
        place = self._places.get((metric, labels))
        if place is None:
            width = width or metric.width
            if self._next + width > self._capacity:
                raise StartError(
                    f"too many metric series (over {self._capacity} cells): fewer routes or backends are needed"
                )
            place = self._places[metric, labels] = self._next
            self._next += width
        return place

    def series(self) -> Iterable[tuple[Metric, Labels, int]]:
        """Every series with its first cell, in the order of allotment."""
        return [(metric, labels, place) for (metric, labels), place in self._places.items()]


class Cells:
    """A block of int64 in a memory file; `add` and `observe` are the hot path."""

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, CELLS * 8)
        self.values = memoryview(self._map).cast("q")

    @staticmethod
    def create(name: str) -> int:
        """A new memory file; returns its descriptor, which a worker inherits."""
        fd = os.memfd_create(name)
        os.ftruncate(fd, CELLS * 8)
        return fd

    def add(self, cell: int, amount: int = 1) -> None:
        self.values[cell] += amount

    def observe(self, first: int, nanoseconds: int) -> None:
        """Counts one duration in the histogram that starts at `first`."""
        values, bounds = self.values, NANOSECONDS
        low, high = 0, _LAST
        while low < high:  # bisect_left, which compiled code would have to call
            middle = (low + high) >> 1
            if bounds[middle] < nanoseconds:
                low = middle + 1
            else:
                high = middle
        values[first + low] += 1
        values[first + _LAST + 1] += nanoseconds
