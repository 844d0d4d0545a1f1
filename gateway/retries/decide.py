"""What follows a try that failed: another one at once, another one after a pause, or none.

`decide` is pure: it is told what happened and says what to do; `gateway.upstreams.caller` does it, if the pool's budget
allows. docs/retries.md has its table, made by the tests from this very function. The rules, in order:

* a reason the route names, and a request that may run twice or that no backend can have seen;
* tries left, and time left beyond the pause;
* another backend: one not tried yet, else one tried before the last. Never the last one again, unless the route says so
  (`same_backend`, for a pool whose one address stands for many servers);
* the first retry elsewhere is at once, unless the backend was overloaded: whoever else there is has the same clients.
  Later ones, and those at a backend that was tried before, wait in a back-off with full jitter;
* `Retry-After` is a backend's word about itself: somebody not tried yet is asked all the same; else it is waited for,
  on top of the back-off, if that leaves time to answer, and if not the request is given up at once.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

from gateway.retries.backoff import full_jitter
from gateway.retries.rules import RetryRules

OVERLOAD: Final = frozenset(("429", "503"))  # reasons that say: not here, and not now


class Others(enum.IntEnum):
    """Whom the pool has, beside the backend that was asked last."""

    NONE = 0
    TRIED = 1  # somebody who was tried for this request before
    FRESH = 2


class Failed(NamedTuple):
    """A try that failed. `reason` is one of REASONS, or "" for what no retry would mend.

    `unseen`: no backend can have begun on it. `overload`: it was refused for want of room, there or on the way.
    `wait`: what is left, in nanoseconds, of the longest Retry-After that any backend answered this request with.
    """

    reason: str
    unseen: bool = False
    overload: bool = False
    wait: int = 0


class Step(NamedTuple):
    """What to do: `again`, after `pause` nanoseconds; `why` not, in words."""

    again: bool
    pause: int = 0
    why: str = ""


NOT_FOR_THIS: Final = Step(False, why="not a reason of the route")
NOT_TWICE: Final = Step(False, why="the request may not run twice")
NO_MORE_TRIES: Final = Step(False, why="no more tries")
NOBODY_ELSE: Final = Step(False, why="nobody else to ask")
NO_TIME: Final = Step(False, why="no time left to wait")
AT_ONCE: Final = Step(True)


def decide(
    rules: RetryRules, failed: Failed, tries: int, others: Others, left: int, *, twice: bool, rand: float
) -> Step:
    """What follows try number `tries` (from 1) with `left` nanoseconds to the deadline.

    `twice`: the request may run twice. `rand` is drawn from [0, 1).
    """
    if failed.reason not in rules.on:
        return NOT_FOR_THIS
    if not (twice or failed.unseen):
        return NOT_TWICE
    if tries >= rules.attempts:
        return NO_MORE_TRIES
    if others is Others.NONE and not rules.same_backend:
        return NOBODY_ELSE
    if others is Others.FRESH and tries == 1 and not failed.overload:
        return AT_ONCE if left > 0 else NO_TIME
    pause = full_jitter(rules.backoff, rules.backoff_max, tries, rand)
    if others is not Others.FRESH:
        pause += failed.wait
    return Step(True, pause) if pause < left else NO_TIME
