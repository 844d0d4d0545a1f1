"""A retry budget: what is sent on top of the requests is a share of them, so that retrying cannot become a storm.

Contract: `deposit` once per request that is sent to the pool; `reserve` before anything is sent on top (a retry, a
hedge), and then either `spend` when it is sent or `give_back` when it is not. What waits in a back-off has been
reserved, and so counts already. At every `reserve`, with requests and what was sent on top counted in the last ten
seconds and in the last one of them:

    sent + waiting <= ratio * requests           of ten seconds
    sent + waiting <= 1.25 * ratio * requests    of one second
    or, where that is more,
    sent + waiting <= minimum                    of one second

Who asks for what can be spared gets none of the last quarter of either, but in a quiet pool the one that there is.

So good times may save up for bad ones, but no second ever has more than a quarter again of its share; an account
that is only limited in what it saves (Finagle's) can spend it all at once, which is just what a stall makes everybody
do. A quiet pool can retry at all. In the long run it is never more than `ratio` of the requests and `minimum` a second
and the first second's minimum. One per pool and worker, each with its part of the minimum (`memory.py`), for what is to
be protected is the pool: many small budgets add up to a storm.
Sources: Finagle's RetryBudget (ratio and minimum over ten seconds); Envoy's retry budget (per cluster); the SRE book,
chapter 22 (a tenth); Bronson et al., "Metastable Failures in Distributed Systems" (HotOS 2021).
"""

from __future__ import annotations

from typing import Final

SLOT: Final = 50_000_000  # nanoseconds
SLOTS: Final = 200  # of which ten seconds are made
SECOND: Final = 20  # and one
BURST: Final = 1.25  # of its share, what one second may have
SPARE: Final = 0.75  # of the share of ten seconds or of the minimum, what may be spent on what can do without

#: What pays for something sent on top: nothing, the requests of the window, or the minimum.
NOTHING: Final = 0
SHARE: Final = 1
MINIMUM: Final = 2


class RetryBudget:
    """`ratio` of the requests, or `minimum` per second where that is more. `now` is monotonic nanoseconds."""

    __slots__ = (
        "_at", "_earned", "_lately", "_minimum", "_ratio", "_recent", "_requests", "_requests_here", "_since",
        "_spent", "_spent_here", "waiting",
    )  # fmt: skip

    def __init__(self, ratio: float, minimum: float, now: int) -> None:
        self._requests_here = [0] * SLOTS  # by slot
        self._spent_here = [0] * SLOTS
        self._requests = 0  # of ten seconds
        self._spent = 0
        self._recent = 0  # requests of one second
        self._lately = 0  # and what was sent on top of them
        self._at = now // SLOT
        self._since = now
        self.waiting = 0  # reserved and not sent yet
        self._ratio = ratio
        self._minimum = minimum
        self._earned = self._most()  # of the minimum

    def configure(self, ratio: float, minimum: float) -> None:
        """Takes new settings at a reload; what was counted stays."""
        self._ratio = ratio
        self._minimum = minimum
        self._earned = min(self._earned, self._most())

    @property
    def spent(self) -> int:
        """What was sent on top within the last second, as of the last call."""
        return self._lately

    def deposit(self, now: int) -> None:
        """Once per request, when it is first sent."""
        at = now // SLOT
        if at != self._at:
            self._turn(at)
        self._requests_here[at % SLOTS] += 1
        self._requests += 1
        self._recent += 1

    def reserve(self, now: int, *, spare: bool = False) -> int:
        """Holds one more to be sent, now or after a back-off; with `spare` only if there is plenty. Says what pays for
        it; NOTHING: it may not be sent.
        """
        self._turn(now // SLOT)
        paid = self._pays(now, SPARE if spare else 1.0)
        if paid == NOTHING:
            return NOTHING
        if paid == MINIMUM:
            self._earned -= 1.0
        self.waiting += 1
        return paid

    def spend(self, now: int) -> None:
        """What was reserved is sent."""
        self._turn(now // SLOT)
        self.waiting -= 1
        self._spent_here[self._at % SLOTS] += 1
        self._spent += 1
        self._lately += 1

    def give_back(self, paid: int) -> None:
        """What was reserved is not sent: nobody to ask, no time left, or the client has gone."""
        self.waiting -= 1
        if paid == MINIMUM:
            self._earned = min(self._most(), self._earned + 1.0)

    def _pays(self, now: int, part: float) -> int:
        self._earned = min(self._most(), self._earned + (now - self._since) * self._minimum / 1e9)
        self._since = now
        one_more = self.waiting + 1
        ratio = self._ratio
        saved = self._spent + one_more <= part * ratio * self._requests
        if saved and self._lately + one_more <= BURST * ratio * self._recent:
            return SHARE
        enough = min(self._most(), 1.0 + (1.0 - part) * self._minimum)
        rare = self._lately + one_more <= max(part * self._minimum, 1.0)
        return MINIMUM if rare and self._earned >= max(enough, 1.0) else NOTHING

    def _most(self) -> float:
        """Of the minimum, that can be saved: one second's, and a whole one."""
        return max(self._minimum, 1.0) if self._minimum else 0.0

    def _turn(self, at: int) -> None:
        """Forgets what is older than a second, and than ten."""
        steps = at - self._at
        if steps <= 0:
            return
        if steps >= SLOTS:
            self._requests = self._spent = self._recent = self._lately = 0
            self._requests_here = [0] * SLOTS
            self._spent_here = [0] * SLOTS
        else:
            for number in range(self._at + 1, at + 1):
                old = number % SLOTS
                self._requests -= self._requests_here[old]
                self._spent -= self._spent_here[old]
                self._requests_here[old] = self._spent_here[old] = 0
                leaves = (number - SECOND) % SLOTS
                self._recent -= self._requests_here[leaves]
                self._lately -= self._spent_here[leaves]
        self._at = at

    def __repr__(self) -> str:
        return f"<RetryBudget {self._lately} on top of {self._recent} a second, {self.waiting} waiting>"
