"""Every request of a load as one row, and exact summaries of any window of them.

Contract: a row belongs to the moment its request was *due*, not to when it was answered. Rows are kept whole, in
columns (28 bytes a request), so a summary of any client, phase or window is exact: percentiles are nearest-rank over
the sorted latencies, not estimates from buckets, and can be asked for after the fact.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from loadtests.load.model import Outcome

ANSWERED = frozenset((Outcome.OK, Outcome.WRONG))
PERCENTILES = (50.0, 90.0, 99.0, 99.9)


class Kind(NamedTuple):
    """What rows have in common: shared, so that a row is only numbers."""

    client: str
    outcome: Outcome
    status: int
    labels: tuple[str | None, ...]


class Sample(NamedTuple):
    """One request. ``due`` is seconds since the load began, ``latency`` and ``lag`` seconds from when it was due.

    ``lag`` is the generator's own delay before the bytes were written or the connection was begun.
    """

    client: str
    due: float
    latency: float
    lag: float
    outcome: Outcome
    status: int
    labels: tuple[str | None, ...]


class Samples:
    """The rows. Only ever appended to."""

    def __init__(self, label_names: tuple[str, ...]) -> None:
        self.label_names = label_names
        self._due = array("d")
        self._latency = array("d")
        self._lag = array("d")
        self._kind = array("I")
        self._kinds: dict[Kind, int] = {}

    def __len__(self) -> int:
        return len(self._due)

    def add(self, kind: Kind, due: float, latency: float, lag: float) -> None:
        """Append a row."""
        self._due.append(due)
        self._latency.append(latency)
        self._lag.append(lag)
        self._kind.append(self._kinds.setdefault(kind, len(self._kinds)))

    def select(self, client: str | None = None, since: float = 0.0, until: float = math.inf) -> Iterator[Sample]:
        """Rows of one client (or all) that were due in [since, until), in the order they ended."""
        kinds = list(self._kinds)
        wanted = [client is None or kind.client == client for kind in kinds]
        for due, latency, lag, index in zip(self._due, self._latency, self._lag, self._kind, strict=True):
            if wanted[index] and since <= due < until:
                kind = kinds[index]
                yield Sample(kind.client, due, latency, lag, kind.outcome, kind.status, kind.labels)

    def summary(self, client: str | None, since: float, until: float) -> Summary:
        """Counts and latencies of a window of finite length."""
        return summarise(self.select(client, since, until), self.label_names, until - since)

    def timeline(self, client: str | None, seconds: float, step: float) -> list[tuple[float, Summary]]:
        """A summary per ``step``, each with its beginning; the last lasts half a step to one and a half."""
        rows: list[list[Sample]] = [[] for _ in range(max(1, round(seconds / step)))]
        last = len(rows) - 1
        for sample in self.select(client, 0.0, seconds):
            rows[min(last, int(sample.due / step))].append(sample)
        return [
            (i * step, summarise(row, self.label_names, step if i < last else seconds - i * step))
            for i, row in enumerate(rows)
        ]


@dataclass(frozen=True, slots=True)
class Summary:
    """A window of a load. Latencies are of whole answers, in seconds from when each was due; NaN without any."""

    seconds: float
    offered: int
    outcomes: dict[Outcome, int]
    statuses: dict[int, int]
    labels: dict[str, dict[str, int]]
    percentiles: dict[float, float]
    max_latency: float
    lag_p99: float

    @property
    def answered(self) -> int:
        """Requests that got a whole response, right or wrong, of any status."""
        return sum(self.outcomes.get(outcome, 0) for outcome in ANSWERED)

    @property
    def failed(self) -> int:
        """Requests without a whole response that the check agreed to; a whole 429 or 503 is not among them."""
        return self.offered - self.outcomes.get(Outcome.OK, 0)

    @property
    def offered_rate(self) -> float:
        """Requests due per second."""
        return self.offered / self.seconds if self.seconds > 0 else 0.0

    @property
    def answered_rate(self) -> float:
        """Of those, answered, per second."""
        return self.answered / self.seconds if self.seconds > 0 else 0.0

    @property
    def p50(self) -> float:
        """Median latency in seconds."""
        return self.percentiles[50.0]

    @property
    def p99(self) -> float:
        """99th percentile of latency in seconds."""
        return self.percentiles[99.0]


def summarise(samples: Iterable[Sample], label_names: tuple[str, ...], seconds: float) -> Summary:
    """Count samples that were due within ``seconds``."""
    outcomes: Counter[Outcome] = Counter()
    statuses: Counter[int] = Counter()
    labels: dict[str, Counter[str]] = {name: Counter() for name in label_names}
    latencies: list[float] = []
    lags: list[float] = []
    for sample in samples:
        outcomes[sample.outcome] += 1
        lags.append(sample.lag)
        if sample.outcome in ANSWERED:
            latencies.append(sample.latency)
            statuses[sample.status] += 1
            for name, value in zip(label_names, sample.labels, strict=True):
                if value is not None:
                    labels[name][value] += 1
    latencies.sort()
    lags.sort()
    return Summary(
        seconds=seconds,
        offered=len(lags),
        outcomes={outcome: outcomes[outcome] for outcome in Outcome if outcomes[outcome]},
        statuses=dict(sorted(statuses.items())),
        labels={name: dict(counts.most_common()) for name, counts in labels.items()},
        percentiles={q: percentile(latencies, q) for q in PERCENTILES},
        max_latency=latencies[-1] if latencies else math.nan,
        lag_p99=percentile(lags, 99.0),
    )


def percentile(ordered: list[float], q: float) -> float:
    """Nearest-rank percentile of sorted values; NaN of none."""
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(len(ordered) * q / 100.0) - 1)]
