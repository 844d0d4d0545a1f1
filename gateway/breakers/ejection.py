"""Outlier ejection: a backend that does far worse than its pool's others is left alone, longer each time.

A breaker judges a backend by itself; this judges it by the others, and so sees what no fixed threshold can: 10 % of
errors where the rest has none, or 50 ms where the rest takes 5. Once an interval, of the backends with enough calls:

* success rate: `success_factor` standard deviations and at least five points below the median;
* mean latency: `latency_factor` times the median and at least 5 ms above it.

The deviation is robust: the median absolute deviation (times 1.4826) with the sampling error of so many calls. A plain
one, as in Envoy's success-rate ejection (factor 1.9, at least five hosts), contains the outlier itself: one bad backend
among n lies at most (n-1)/sqrt(n) deviations off, which is 1.79 for five, so it is never found there. Envoy's failure
percentage is the breaker's `error_rate`.

Worst first, no more than `max_share` of the pool's weight, but one backend always if it is not more than half of it.
The time out is `base` times how often it was ejected; every interval in which it behaves takes one off (as in Envoy).
Judged in one place for all workers, over the counts they share, so it costs a request nothing and all agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median_high, median_low
from typing import Final, NamedTuple

GAP: Final = 0.05  # least difference of success rates that is worth anything
LATER: Final = 5_000_000  # least difference of mean latencies, nanoseconds
MAD: Final = 1.4826  # turns a median absolute deviation into a standard deviation of a normal distribution
SECOND: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class EjectionSettings:
    """Durations in seconds; a factor of 0 is not looked at."""

    interval: float = 10.0
    min_calls: int = 50
    min_backends: int = 3
    success_factor: float = 3.0
    latency_factor: float = 5.0
    base: float = 30.0
    longest: float = 300.0
    max_share: float = 0.3


class Counts(NamedTuple):
    """Of one backend since the beginning: `ended` attempts took `took_ns` together; of the judged ones some failed."""

    successes: int
    failures: int
    ended: int
    took_ns: int


class Seen(NamedTuple):
    """What is judged of one backend in one interval."""

    calls: int
    success: float
    mean_ns: float


class Ejected(NamedTuple):
    """Who was ejected, for "success-rate" or "latency", until when."""

    backend: str
    reason: str
    until: int


class Ejection:
    """Of one pool. `now` is monotonic nanoseconds; backends are known by their keys."""

    def __init__(self, settings: EjectionSettings, now: int) -> None:
        self.settings = settings
        self.out: dict[str, int] = {}  # until when
        self._times: dict[str, int] = {}
        self._before: dict[str, Counts] = {}
        self._next = now + int(settings.interval * SECOND)

    def judge(self, counts: Mapping[str, Counts], weights: Mapping[str, int], now: int) -> list[Ejected]:
        """Looks once an interval, and returns who is newly ejected. Those whose time is up come back at any call."""
        self.out = {key: until for key, until in self.out.items() if now < until and key in weights}
        if now < self._next:
            return []
        self._next = now + int(self.settings.interval * SECOND)
        seen = {key: _seen(self._before.get(key), count) for key, count in counts.items()}
        self._before = dict(counts)
        judged = {
            key: each
            for key, each in seen.items()
            if each is not None and each.calls >= self.settings.min_calls and key not in self.out and weights.get(key)
        }
        bad = self._outliers(judged) if len(judged) >= self.settings.min_backends else []
        ejected = [self._eject(key, reason, now) for _, key, reason in bad if self._allowed(key, weights)]
        for key in [key for key in judged if key in self._times and key not in self.out]:
            self._times[key] -= 1
            if not self._times[key]:
                del self._times[key]
        return ejected

    def _outliers(self, judged: Mapping[str, Seen]) -> list[tuple[float, str, str]]:
        """How far off (in thresholds), who and why; the worst first."""
        found: list[tuple[float, str, str]] = []
        rate = median_high(each.success for each in judged.values())  # of two middle ones the better
        spread = MAD * median_low(abs(each.success - rate) for each in judged.values())
        latency = median_low(each.mean_ns for each in judged.values())
        for key, each in judged.items():
            likely = (rate * each.calls + 1.0) / (each.calls + 2.0)  # Laplace: a rate of 1 may be luck, too
            sigma = (spread**2 + likely * (1.0 - likely) / each.calls) ** 0.5
            gap = rate - each.success
            limit = max(GAP, self.settings.success_factor * sigma)
            if self.settings.success_factor and gap >= limit:
                found.append((gap / limit, key, "success-rate"))
            elif self.settings.latency_factor:
                limit = max(latency * self.settings.latency_factor, latency + LATER)
                if each.mean_ns >= limit:
                    found.append((each.mean_ns / limit, key, "latency"))
        return sorted(found, reverse=True)

    def _allowed(self, key: str, weights: Mapping[str, int]) -> bool:
        total = sum(weights.values())
        out = sum(weights.get(each, 0) for each in self.out) + weights[key]
        return out <= total * self.settings.max_share or (not self.out and 2 * out <= total)

    def _eject(self, key: str, reason: str, now: int) -> Ejected:
        times = self._times[key] = self._times.get(key, 0) + 1
        self.out[key] = until = now + int(min(self.settings.base * times, self.settings.longest) * SECOND)
        return Ejected(key, reason, until)


def _seen(before: Counts | None, count: Counts) -> Seen | None:
    """The interval between two counts; None if it cannot be told."""
    if before is None:
        return None
    calls = count.successes - before.successes + count.failures - before.failures
    ended = count.ended - before.ended
    if calls <= 0 or ended <= 0:
        return None
    return Seen(calls, (count.successes - before.successes) / calls, (count.took_ns - before.took_ns) / ended)
