"""How many requests a pool may have in flight: a number, and what is known of its answers. Times are nanoseconds."""

from __future__ import annotations

from typing import Final

from gateway.request import Outcome

CLIP: Final = 2.5  # usual latencies: more says nothing about the queue (heavy tails)
STALL: Final = 1_000_000_000  # and four latencies, without a single answer


class Limit:
    """A number of places: what a pool may have in flight, and what is known of its answers.

    `latency` and `spread` are the usual time to an answer and its mean deviation. `open`: nothing speaks against more
    than the number, it only has not been needed.
    """

    def __init__(self, allowed: int) -> None:
        self.allowed = allowed
        self.open = False
        self.latency = 0.0
        self.spread = 0.0
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

    def stalled(self, answered: int, now: int) -> bool:
        """Whether nobody has been answered since `answered`, and that is long: no overload, in which some still are."""
        return now - answered > max(STALL, 4 * int(self.latency))

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
