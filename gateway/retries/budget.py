"""A retry budget: what is sent on top of the requests is a share of them, so that retrying cannot become a storm.

Contract: `deposit` once per request that is sent to the pool; `reserve` before anything is sent on top (a retry, a
hedge), and then either `spend` when it is sent or `give_back` when it is not. What waits in a back-off has been
reserved, and so counts already. Counted is in a window of a second, in slots of a twentieth. With `requests` and
`spent` in that window:

    spent + waiting <= max(ratio * requests, minimum, 1 where there is a minimum)

at every `reserve`. So a quiet pool can retry at all, a busy one never has more than the share on top, and nothing is
saved up in good times for a burst in bad ones: that holds for every second, which an account with savings cannot say.
In the long run it is never more than `ratio` of the requests and `minimum` a second and the first second's minimum.
One per pool and worker, for what is to be protected is the pool: many small budgets add up to a storm.
Sources: Finagle's RetryBudget (ratio and minimum, but saved up for ten seconds); Envoy's retry budget (per cluster);
the SRE book, chapter 22; Bronson et al., "Metastable Failures in Distributed Systems" (HotOS 2021).
"""

from __future__ import annotations

from typing import Final

SLOT: Final = 50_000_000  # nanoseconds
SLOTS: Final = 20  # to a window

#: What pays for something sent on top: nothing, the requests of the window, or the minimum.
NOTHING: Final = 0
SHARE: Final = 1
MINIMUM: Final = 2


class RetryBudget:
    """`ratio` of the requests, or `minimum` per second where that is more. `now` is monotonic nanoseconds."""

    __slots__ = (
        "_at", "_earned", "_minimum", "_ratio", "_requests", "_requests_all", "_since", "_spent", "_spent_all",
        "denied", "waiting",
    )  # fmt: skip

    def __init__(self, ratio: float, minimum: float, now: int) -> None:
        self._requests = [0] * SLOTS
        self._spent = [0] * SLOTS
        self._requests_all = 0  # in the window
        self._spent_all = 0
        self._at = now // SLOT
        self._since = now
        self.waiting = 0  # reserved and not sent yet
        self.denied = 0
        self._earned = 0.0  # of the minimum
        self._ratio = ratio
        self._minimum = minimum
        self.configure(ratio, minimum)
        self._earned = self._most()

    def configure(self, ratio: float, minimum: float) -> None:
        """Takes new settings at a reload; what was counted stays."""
        self._ratio = ratio
        self._minimum = minimum
        self._earned = min(self._earned, self._most())

    @property
    def spent(self) -> int:
        """What was sent on top within the window, as of the last call."""
        return self._spent_all

    def deposit(self, now: int) -> None:
        """Once per request, when it is first sent."""
        at = now // SLOT
        if at != self._at:
            self._turn(at)
        self._requests[at % SLOTS] += 1
        self._requests_all += 1

    def allows(self, now: int) -> bool:
        """Whether `reserve` would say yes; changes nothing that matters."""
        self._turn(now // SLOT)
        return self._pays(now) != NOTHING

    def reserve(self, now: int) -> int:
        """Holds one more to be sent, now or after a back-off. Says what pays for it; NOTHING: it may not be sent."""
        self._turn(now // SLOT)
        paid = self._pays(now)
        if paid == NOTHING:
            self.denied += 1
            return NOTHING
        if paid == MINIMUM:
            self._earned -= 1.0
        self.waiting += 1
        return paid

    def spend(self, now: int) -> None:
        """What was reserved is sent."""
        self._turn(now // SLOT)
        self.waiting -= 1
        self._spent[self._at % SLOTS] += 1
        self._spent_all += 1

    def give_back(self, paid: int) -> None:
        """What was reserved is not sent: nobody to ask, no time left, or the client has gone."""
        self.waiting -= 1
        if paid == MINIMUM:
            self._earned = min(self._most(), self._earned + 1.0)

    def _pays(self, now: int) -> int:
        self._earned = min(self._most(), self._earned + (now - self._since) * self._minimum / 1e9)
        self._since = now
        taken = self._spent_all + self.waiting
        if taken + 1 <= self._ratio * self._requests_all:
            return SHARE
        return MINIMUM if self._earned >= 1.0 and taken + 1 <= max(self._minimum, 1.0) else NOTHING

    def _most(self) -> float:
        """Of the minimum, that can be saved: one second's, and a whole one."""
        return max(self._minimum, 1.0) if self._minimum else 0.0

    def _turn(self, at: int) -> None:
        """Forgets what has left the window."""
        steps = at - self._at
        if steps <= 0:
            return
        for number in range(self._at + 1, self._at + 1 + min(steps, SLOTS)):
            slot = number % SLOTS
            self._requests_all -= self._requests[slot]
            self._spent_all -= self._spent[slot]
            self._requests[slot] = self._spent[slot] = 0
        self._at = at

    def __repr__(self) -> str:
        return f"<RetryBudget {self._spent_all} on top of {self._requests_all} a second, {self.waiting} waiting>"
