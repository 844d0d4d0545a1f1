"""A history of decisions about one bucket, checked one by one against a sequential bucket.

With each decision comes the store's own time, so all of them are put into the order in which the store made them. A
question whose answer was lost may have taken a token; no token may come from nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from loadtests.limit_worker import Told

TOLERANCE = 1e-3  # tokens


@dataclass(frozen=True, slots=True)
class Asked:
    """One decision: when it was asked and answered (`time.monotonic`), the level after it, the store's clock, or alone;
    whether it waited for the store (`asked`).
    """

    before: float
    after: float
    allowed: bool
    level: float
    clock: float
    alone: bool
    asked: bool
    worker: int

    @property
    def waited(self) -> float:
        return self.after - self.before


@dataclass(slots=True)
class Checked:
    """What the sequential bucket says of a history."""

    decisions: int = 0
    unobserved: int = 0  # tokens that somebody took without hearing of it
    violations: list[str] = field(default_factory=list)


def check_history(asked: Sequence[Asked], rate: float, burst: float, refunded: float = 0.0) -> Checked:
    """One memory of the store: decisions in its own order against a bucket that is refilled and taken from one by one.

    Within one call of the script its clock stands still; there a level only falls, so that is the order. `refunded`:
    tokens that workers gave back, which a late store had taken for nothing.
    """
    checked = Checked()
    level = clock = 0.0
    for one in sorted(asked, key=lambda one: (one.clock, -one.level, not one.allowed)):
        if checked.decisions:
            had = min(burst, level + rate * (one.clock - clock) / 1e6)
            found = one.level + one.allowed
            if TOLERANCE < found - had <= refunded + TOLERANCE:
                refunded -= found - had
            elif found > had + TOLERANCE:
                checked.violations.append(f"{found - had:.3f} tokens from nowhere at {one.clock:.0f} us")
            elif found < had - TOLERANCE:
                checked.unobserved += max(1, round(had - found))
            if one.allowed and found < 1 - TOLERANCE:
                checked.violations.append(f"admitted with {found:.3f} tokens at {one.clock:.0f} us")
            if not one.allowed and found >= 1 + TOLERANCE:
                checked.violations.append(f"refused with {found:.3f} tokens at {one.clock:.0f} us")
        level, clock = one.level, one.clock
        checked.decisions += 1
    return checked


def heard(found: Sequence[Told]) -> list[Asked]:
    """Everything that was asked."""
    return [
        Asked(before, after, bool(allowed), level, clock, bool(alone), bool(waited), worker)
        for worker, told in enumerate(found)
        for before, after, _, allowed, level, clock, alone, waited in told.records
    ]
