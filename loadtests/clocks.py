"""Whether the machine's time of day went as its monotonic clock did, and by how much it was set.

A token bucket in Redis goes by the server's time of day (`TIME`). Set ahead, it gives what passed and what was skipped;
set back, it gives nothing twice, and goes on from there. So what a bucket may have given in T seconds that really
passed is burst + rate x (T + `ahead`), while its own clock shows T + `ahead` - `back`.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Final, Self

PAUSE: Final = 0.02  # seconds between two looks
STEP: Final = 200_000  # nanoseconds in one pause: more than slewing does (500 ppm), and than reading two clocks takes


def offset_ns() -> int:
    """How far the time of day is from the monotonic clock: of five readings the one that was least interrupted."""
    readings = []
    for _ in range(5):
        before = time.monotonic_ns()
        now = time.time_ns()
        after = time.monotonic_ns()
        readings.append((after - before, now - (before + after) // 2))
    return min(readings)[1]


class Clocks:
    """Looks from `with` to its end, in a thread of its own. `ahead`, `back`: seconds the time of day was set by."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.back = 0.0
        self._offset = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._offset = offset_ns()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
        self.note(offset_ns())

    def _look(self) -> None:
        while not self._ended.wait(PAUSE):
            self.note(offset_ns())

    def note(self, offset: int) -> None:
        """One look found the clocks `offset` nanoseconds apart. What is less than a step gathers until it is one."""
        moved = offset - self._offset
        if abs(moved) < STEP:
            return
        self._offset = offset
        if moved > 0:
            self.ahead += moved / 1e9
        else:
            self.back -= moved / 1e9

    def __str__(self) -> str:
        if not self.ahead and not self.back:
            return "the time of day went as the monotonic clock"
        return f"the time of day was set ahead by {self.ahead * 1e3:.1f} ms and back by {self.back * 1e3:.1f} ms"
