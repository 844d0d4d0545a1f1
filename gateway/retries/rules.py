"""What a route says of trying again, and where it is counted."""

from __future__ import annotations

from typing import Final

from gateway.retries.hedge import HedgeRules

#: Why a try is repeated, as the configuration and the metrics spell it. "timeout" is the end of a try's own time.
REASONS: Final = ("connect", "reset", "timeout", "408", "425", "429", "500", "502", "503", "504")
IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"))  # RFC 9110 section 9.2.2


class RetryCells:
    """Where what is sent on top of the requests is counted. `retries` has a cell for each of REASONS."""

    __slots__ = (
        "denied", "hedges_cancelled", "hedges_denied", "hedges_sent", "hedges_won", "retries", "wasted",
    )  # fmt: skip

    def __init__(
        self,
        retries: dict[str, int],
        denied: int,
        wasted: int,
        hedges_sent: int,
        hedges_won: int,
        hedges_cancelled: int,
        hedges_denied: int,
    ) -> None:
        self.retries = retries
        self.denied = denied
        self.wasted = wasted
        self.hedges_sent = hedges_sent
        self.hedges_won = hedges_won
        self.hedges_cancelled = hedges_cancelled
        self.hedges_denied = hedges_denied


class RetryRules:
    """Of one route at one pool. Times in nanoseconds. `on` holds REASONS; `per_try` 0: a try has all the time there is.

    `replay_field` is a header field (lower case) whose presence says that the request may run twice; b"": none does.
    """

    __slots__ = (
        "attempts", "backoff", "backoff_max", "cells", "hedge", "on", "per_try", "replay_field", "replayable",
        "same_backend", "watched",
    )  # fmt: skip

    def __init__(
        self,
        cells: RetryCells,
        attempts: int = 1,
        on: frozenset[str] = frozenset(),
        *,
        replayable: bool = False,
        replay_field: bytes = b"",
        per_try: int = 0,
        backoff: int = 25_000_000,
        backoff_max: int = 250_000_000,
        same_backend: bool = False,
        hedge: HedgeRules | None = None,
    ) -> None:
        self.cells = cells
        self.attempts = attempts
        self.on = on | {"timeout"} if per_try else on
        self.replayable = replayable
        self.replay_field = replay_field
        self.per_try = per_try
        self.backoff = backoff
        self.backoff_max = backoff_max
        self.same_backend = same_backend
        self.hedge = hedge
        self.watched = hedge is not None or (per_try > 0 and attempts > 1)  # a try is looked at before it ends


def may_run_twice(rules: RetryRules | None, method: bytes, headers: dict[bytes, bytes]) -> bool:
    """Whether a request (whose body is whole) may be sent again although a backend may have begun on it."""
    if method in IDEMPOTENT:
        return True
    if rules is None:
        return False
    return rules.replayable or (rules.replay_field != b"" and rules.replay_field in headers)
