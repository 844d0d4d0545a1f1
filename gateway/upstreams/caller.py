"""Asks a pool: pick, permit, exchange, judge; what follows a failure is for `gateway.upstreams.asking`.

Invariants: every permit is released exactly once, with IGNORE when the client went away; nothing is sent once the
deadline has passed; a retry or a hedge is only sent for a reason the route allows, within the pool's budget. An answer
that streams holds its backend's place until it is read or discarded: an earlier attempt's is discarded here, that of
the `Answer` is for the caller to dispose of.

Admission is asked once per request, around `ask`: a retry needs no second one. A retry takes the place of the try
before it, and what hedges put on top is bounded by the budget.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final

from gateway.breakers.models import model_of
from gateway.breakers.permit import Permit
from gateway.request import Outcome, Request
from gateway.retries.rules import RetryRules, may_run_twice
from gateway.telemetry.cells import Cells
from gateway.upstreams.asking import Answer, Asking
from gateway.upstreams.attempt import Attempt
from gateway.upstreams.backend import Backend
from gateway.upstreams.pool import Pool

#: Statuses with which a backend says "not now": reason for the ladder.
UNAVAILABLE: Final = frozenset((429, 502, 503, 504))


class Caller:
    """One per worker. `draw` returns a float in [0, 1): for the jitter of back-offs."""

    def __init__(self, cells: Cells, draw: Callable[[], float] = random.random) -> None:
        self.cells = cells
        self.draw = draw

    async def ask(
        self,
        pool: Pool,
        request: Request,
        target: bytes,
        deadline: int,
        rules: RetryRules | None,
        dropped: frozenset[bytes],
        fair: int = 0,
    ) -> Answer:
        """One answer from `pool` before `deadline` (monotonic nanoseconds). Without `rules` there is one try.

        Running out of time counts against a backend only if it had at least `fair` nanoseconds: a caller who is
        in too great a hurry must not open the breaker for everybody else.
        """
        if pool.per_model:
            request.model = request.named or model_of(target)
        now = time.monotonic_ns()
        attempt = self.begin(pool, request, [], now) if now < deadline else None
        if attempt is None:
            return Answer(None, None, None, 0)
        if rules is not None:
            pool.budget.deposit(now)
            if rules.watched and request.stream is None and may_run_twice(rules, request.method, request.headers):
                return await Asking(self, pool, request, target, deadline, rules, dropped, fair).first(attempt)
        backend = attempt.backend
        left = attempt.enter(request, deadline)
        try:  # as `Attempt.run`, in this coroutine: most requests go no further
            response = await backend.connections.ask(
                request, target, backend.authority, left, dropped, deadline=deadline / 1e9, fresh=False
            )
        except BaseException as error:
            if not attempt.broke(error, hurried=left < fair):
                raise
        else:
            attempt.answered(request, response, hurried=left < fair)
            if response.status < 400:
                return Answer(response, None, backend, 1)
        return await Asking(self, pool, request, target, deadline, rules, dropped, fair).after(attempt)

    def begin(self, pool: Pool, request: Request, tried: list[Backend], now: int) -> Attempt | None:
        """The next attempt, with its permit; it must be run. None: nobody who is not in `tried` can be asked."""
        while True:
            chosen = pool.pick(request, tried, now)
            if chosen is None:
                return None
            permit = chosen.gate_for(request).try_acquire(now)
            if permit is not None:
                return Attempt(self, pool, chosen, permit, now)
            tried.append(chosen)

    def settle(
        self,
        backend: Backend,
        pool: Pool,
        permit: Permit,
        outcome: Outcome,
        began: int,
        retry_after: int,
        contact: int,
        found: int,
        waited: int = -1,
    ) -> None:
        """Ends one attempt: gives its place and its permit back, and counts it. It `found` so many in flight there.

        `waited` is for what was not up to the backend alone: the nanoseconds until an answer that streamed began (what
        came then is up to its reader), or 0 if the request streamed.
        """
        backend.inflight -= 1
        pool.inflight -= 1
        ended = time.monotonic_ns()
        permit.gate.release(permit, outcome, ended, 0 if waited > 0 else ended - began, contact)
        backend.observe(outcome, ended - began if waited < 0 else waited, ended, retry_after, found)
        self.cells.values[backend.series + outcome] += 1
        self.cells.observe(backend.series + 4, ended - began)
