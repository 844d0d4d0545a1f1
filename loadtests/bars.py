"""A bar: a figure that a benchmark holds something to, and the line that says whether it held."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bar:
    """`value` (None: could not be measured) is to be `most` at the most; `low` and `high` are over the rounds."""

    claim: str
    most: float
    value: float | None
    low: float = 0.0
    high: float = 0.0
    unit: str = ""

    @property
    def holds(self) -> bool:
        return self.value is not None and self.value <= self.most

    def __str__(self) -> str:
        claim = f"{self.claim} <= {self.most:g}{self.unit}"
        if self.value is None:
            return f"bar not measured: {claim}"
        spread = f" ({self.low:.2f}-{self.high:.2f})" if self.high > self.low else ""
        return f"bar {'holds' if self.holds else 'MISSED'}: {claim}: {self.value:.2f}{self.unit}{spread}"


@dataclass(frozen=True, slots=True)
class Floor(Bar):
    """A bar that `value` is to reach: `most` is then the least that it may be."""

    @property
    def holds(self) -> bool:
        return self.value is not None and self.value >= self.most

    def __str__(self) -> str:
        return Bar.__str__(self).replace(f"{self.claim} <= ", f"{self.claim} >= ", 1)


def over(claim: str, most: float, each: Sequence[float], unit: str = "") -> Bar:
    """The bar for the median of one figure a round."""
    if not each:
        return Bar(claim, most, None, unit=unit)
    return Bar(claim, most, statistics.median(each), min(each), max(each), unit)


def at_least(claim: str, least: float, each: Sequence[float]) -> Floor:
    """The floor for the median of one figure a round."""
    if not each:
        return Floor(claim, least, None)
    return Floor(claim, least, statistics.median(each), min(each), max(each))


def report(bars: Iterable[Bar], *, check: bool) -> int:
    """Prints the bars; the exit code: 1 with `check` if one of them does not hold."""
    bars = list(bars)
    for bar in bars:
        print(bar)
    return 1 if check and not all(bar.holds for bar in bars) else 0
