"""How many requests a pool may have in flight: a number, and what is known of its answers. Times are nanoseconds."""

from __future__ import annotations

from typing import Final

from gateway.request import Outcome

CLIP: Final = 2.5  # usual latencies: more says nothing about the queue (heavy tails)


class Limit:
    """A number of places: what a pool may have in flight, and what is known of its answers.

    `latency` and `spread` are the usual time to an answer and its mean deviation, `rate` the answers per second while
    all places are taken (0: not known).
    """

    def __init__(self, allowed: int) -> None:
        self.allowed = allowed
        self.own = 0  # of the places taken, those of this worker
        self.latency = 0.0
        self.spread = 0.0
        self.rate = 0.0
        self.pressed = False  # more is asked for than is answered: only then is it of use to have less in flight

    def tick(self, now: int) -> None:
        """Called every few milliseconds while somebody waits."""

    def follow(self) -> None:
        """Called before `allowed` is read: another worker may have learnt it."""

    def sent(self, inflight: int, now: int) -> int:
        """Called when a place was taken and `inflight` are. The mark is handed to `done`; 0: no sample."""
        return 1 if inflight >= self.allowed else 0

    def done(self, mark: int, took: int, outcome: Outcome, now: int) -> None:
        """Called once for each `sent`."""
        if outcome == Outcome.SUCCESS:
            self._note(took)
            if mark and took > 0:
                rate = max(1, self.own) * 1e9 / took
                self.rate += (rate - self.rate) / 64 if self.rate else rate

    def _note(self, took: int) -> None:
        latency = self.latency
        if not latency:
            self.latency = float(took)
            self.spread = took / 4
            return
        off = took - latency
        off = min(off, CLIP * latency)
        self.latency = latency + off / 16
        self.spread += (abs(off) - self.spread) / 16
