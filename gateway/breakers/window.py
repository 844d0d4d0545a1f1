"""The last `calls` calls that ended within the last `span`: exact counts of all, failed and slow ones.

Both bounds hold at once. A bound on calls alone keeps yesterday's blame on a backend that is seldom asked; one on time
alone needs half of it to notice a change under heavy traffic (at 1000 calls/s and 10 s, five seconds), and must blur
its edge into buckets. Every call is one entry of a ring with its time, so nothing is approximated, and each entry is
put in once and taken out once: O(1) a call. Memory: `calls` integers.

Precedents: Resilience4j (COUNT_BASED or TIME_BASED with buckets of a second), failsafe-go (the same two), Hystrix
(buckets). Kinds are bits, so that an entry can be amended while it is still in the window: a call that is counted slow
before it has ended may turn out to have failed, or to have been refused for overload (VOID: it is no call any more).
"""

from __future__ import annotations

from typing import Final

GOOD: Final = 0
FAILED: Final = 1
SLOW: Final = 2
VOID: Final = 4
_KINDS: Final = 7
_SHIFT: Final = 3


class Window:
    """`span` and every `now` are nanoseconds of one clock that does not go back."""

    __slots__ = ("_first", "_next", "_ring", "_size", "_span", "calls", "failures", "slow")

    def __init__(self, calls: int, span: int) -> None:
        self._size = calls
        self._span = span
        self._ring: list[int] = [0] * calls
        self._first = 0  # number of the oldest entry that counts; entry n lives at n % size
        self._next = 0
        self.calls = 0
        self.failures = 0
        self.slow = 0

    def add(self, now: int, kind: int) -> int:
        """Counts one call; returns its number, for `amend`."""
        number = self._next
        first = self._first
        size = self._size
        if first < number and (number - first == size or (self._ring[first % size] >> _SHIFT) <= now - self._span):
            self.expire(now)
            if number - self._first == size:
                self._drop()
        self._ring[number % size] = now << _SHIFT | kind
        self._next = number + 1
        if not kind & VOID:
            self.calls += 1
            if kind:
                self.failures += kind & FAILED
                self.slow += (kind & SLOW) >> 1
        return number

    def amend(self, number: int, kind: int) -> None:
        """Changes what a counted call was; nothing if it has left the window."""
        if number < self._first:
            return
        place = number % self._size
        entry = self._ring[place]
        self._uncount(entry)
        self._ring[place] = entry >> _SHIFT << _SHIFT | kind
        if not kind & VOID:
            self.calls += 1
            self.failures += kind & FAILED
            self.slow += (kind & SLOW) >> 1

    def expire(self, now: int) -> None:
        """Forgets what ended `span` ago or earlier."""
        oldest = now - self._span
        if self._first < self._next and (self._ring[(self._next - 1) % self._size] >> _SHIFT) <= oldest:
            self.clear()
            return
        while self._first < self._next and (self._ring[self._first % self._size] >> _SHIFT) <= oldest:
            self._drop()

    def clear(self) -> None:
        """Forgets everything."""
        self._first = self._next
        self.calls = self.failures = self.slow = 0

    def resize(self, calls: int, span: int) -> None:
        """Takes new bounds; what is known of the latest calls stays as far as it fits."""
        if calls != self._size:
            kept = [self._ring[n % self._size] for n in range(max(self._first, self._next - calls), self._next)]
            while self._first < self._next - len(kept):
                self._drop()
            ring = [0] * calls
            for offset, entry in enumerate(kept):
                ring[(self._first + offset) % calls] = entry
            self._ring = ring
            self._size = calls
        self._span = span

    def _drop(self) -> None:
        entry = self._ring[self._first % self._size]
        self._first += 1
        self._uncount(entry)

    def _uncount(self, entry: int) -> None:
        if not entry & VOID:
            self.calls -= 1
            self.failures -= entry & FAILED
            self.slow -= (entry & SLOW) >> 1

    def __repr__(self) -> str:
        return f"<Window {self.calls} calls, {self.failures} failed, {self.slow} slow>"
