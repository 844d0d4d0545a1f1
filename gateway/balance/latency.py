"""What is remembered of a candidate's response times; nanoseconds.

`PeakLatency` is Finagle's peak EWMA: a slower answer counts at once and in full, faster ones wear it down over the
decay time, and so does time alone, so that a candidate nobody asks is in the end asked again. `ServiceTime` is an
average of the last answers without their wait in line, so that it foretells the latency at another load.
A failure never looks like speed: it counts as `PENALTY` times what is remembered, so a backend that fails fast is not
the fastest. An attempt that was given up proves that its answer would have taken longer than that.
"""

from __future__ import annotations

import math
from typing import Final

from gateway.balance.policy import Candidate, Gauge
from gateway.request import Outcome

PENALTY: Final = 4.0
LEAST: Final = 1e6  # nanoseconds: a failure counts as at least so slow an answer, times PENALTY
ALPHA: Final = 0.08  # of an answer in the average
TILT: Final = 0.3
FADE: Final = 10e9  # nanoseconds in which an average that gets no answers falls to 1/e
QUIET: Final = (Outcome.SUCCESS, Outcome.IGNORE)  # prove nothing if it is not known how long they took
MOST: Final = 60e9  # nanoseconds: however many failures, no candidate looks slower


class PeakLatency(Gauge):
    """`decay` is the time in which what is remembered falls to 1/e of itself."""

    __slots__ = ("_peak", "_stamp", "decay")

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self._peak = 0.0  # 0: nothing known
        self._stamp = 0

    def observe(self, candidate: Candidate, outcome: Outcome, took: int, found: int, now: int) -> None:  # noqa: ARG002
        if not took and outcome in QUIET:
            return
        old = self.read(now)
        seen = float(took)
        if outcome is Outcome.IGNORE:
            if seen <= old:
                return
        elif outcome is not Outcome.SUCCESS:
            seen = min(max(seen, PENALTY * max(old, LEAST)), MOST)
        if seen < old:
            # Between the last sample and this one the average moved towards this one.
            seen += (self._peak - seen) * math.exp((self._stamp - now) / self.decay)
        self._peak = seen
        self._stamp = now

    def read(self, now: int) -> float:
        """What is left of the peak; 0 if nothing was ever observed."""
        return self._peak * math.exp((self._stamp - now) / self.decay) if self._peak else 0.0


class ServiceTime(Gauge):
    """The average over about the last dozen answers of the time one takes by itself, without its wait in line.

    With c requests at a time and n in flight, a request takes max(c, 1 + n) / c times its service time; c is what the
    backend reports, or 1. What counts is n when the request came: a line that is worked off would else look like a
    slow backend, which is then left alone until all the others look as slow.
    """

    __slots__ = ("_stamp", "_value")

    def __init__(self) -> None:
        self._value = 0.0  # 0: nothing known
        self._stamp = 0

    def observe(self, candidate: Candidate, outcome: Outcome, took: int, found: int, now: int) -> None:
        if not took and outcome in QUIET:
            return
        old = self._value
        capacity = max(candidate.load.capacity, 1.0)
        seen = took * capacity / max(capacity, 1.0 + found + candidate.load.others(now))
        if outcome is Outcome.IGNORE:
            if seen <= old:
                return
        elif outcome is not Outcome.SUCCESS:
            seen = min(max(seen, PENALTY * max(old, LEAST)), MOST)
        self._value = old + (seen - old) * ALPHA if old else seen
        self._stamp = now

    def expect(self, load: float, capacity: float, now: int) -> float:
        """The latency to expect with `load` in flight; 0 if nothing was ever observed. Silence fades it.

        A little is added for what is in flight within the capacity, so that of equals the emptier is preferred.
        """
        if not self._value:
            return 0.0
        capacity = max(capacity, 1.0)
        wait = max(1.0, (1.0 + load) / capacity) + TILT * load / capacity
        return self._value * wait * math.exp((self._stamp - now) / FADE)
