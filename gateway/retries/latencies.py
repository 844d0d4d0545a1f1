"""The recent latencies of one route at one pool, and any percentile of them: when a request is late enough to hedge.

Integer counts in log-linear buckets (as HDR histograms have): sixteen to a doubling, so a percentile is never below the
true one and at most a sixteenth above. Two halves: a new one is begun once the last is `HALF` old and has `FILLED`
counts, and the one before it is dropped; so a busy route remembers five to ten seconds, a quiet one as long as it
takes. `add` costs a tenth of a microsecond; a percentile walks the buckets, so it is worked out ten times a second at
the most. Source: G. Tene, HdrHistogram; Dean and Barroso, "The Tail at Scale" (CACM 2013), for what it is for.
"""

from __future__ import annotations

from typing import Final

HALF: Final = 5_000_000_000  # nanoseconds
FILLED: Final = 200  # counts
ENOUGH: Final = 100  # counts without which there is no percentile: of fewer, the 99th would be one request's whim
FRESH: Final = 100_000_000  # nanoseconds for which a percentile is not worked out again
_UNIT: Final = 10  # bits: buckets count in units of 1,024 ns
_LARGEST: Final = (1 << 32) - 1  # units: 73 minutes
_BUCKETS: Final = 16 * 28 + 32


class Latencies:
    """`now` is monotonic nanoseconds, as are the durations."""

    __slots__ = ("_before", "_began", "_count", "_count_before", "_counts", "_known", "_known_at", "_share")

    def __init__(self, now: int) -> None:
        self._counts = [0] * _BUCKETS
        self._before = [0] * _BUCKETS
        self._count = 0
        self._count_before = 0
        self._began = now
        self._share = 0.0
        self._known = 0
        self._known_at = now - FRESH

    def add(self, took: int, now: int) -> None:
        """Counts one duration; of an attempt that was given up, what it had taken so far."""
        if self._count >= FILLED and now - self._began >= HALF:
            self._before, self._counts = self._counts, [0] * _BUCKETS
            self._count_before, self._count = self._count, 0
            self._began = now
        self._counts[bucket(took)] += 1
        self._count += 1

    def percentile(self, share: float, now: int) -> int:
        """The duration that `share` (above 0, up to 1) of the recent ones did not exceed; 0 if too few are known."""
        if share == self._share and now - self._known_at < FRESH:
            return self._known
        self._share = share
        self._known_at = now
        self._known = self._work_out(share)
        return self._known

    def _work_out(self, share: float) -> int:
        total = self._count + self._count_before
        if total < ENOUGH:
            return 0
        wanted = share * total
        seen = 0
        for number in range(_BUCKETS):
            seen += self._counts[number] + self._before[number]
            if seen >= wanted:
                return edge(number)
        return edge(_BUCKETS - 1)

    def __repr__(self) -> str:
        return f"<Latencies of {self._count_before} + {self._count}>"


def bucket(took: int) -> int:
    """Where a duration is counted."""
    units = min(max(took, 0) >> _UNIT, _LARGEST)
    if units < 32:
        return units
    shift = units.bit_length() - 5
    return (shift << 4) + (units >> shift)


def edge(number: int) -> int:
    """The smallest duration above a bucket, in nanoseconds."""
    if number < 32:
        return (number + 1) << _UNIT
    shift = (number >> 4) - 1
    return ((number - (shift << 4) + 1) << shift) << _UNIT
