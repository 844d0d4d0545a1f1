"""Asks a pool: pick, permit, exchange, judge, and perhaps once more elsewhere, within time and budget.

Invariants: every permit is released exactly once, with IGNORE when the client went away; a backend is never tried
twice for one request, but for one replay of a connection that turned out to be stale; a retry is only made for a
reason the route allows. An answer that streams holds its backend's place until it is read or discarded: an earlier
attempt's is discarded here, that of the `Answer` is for the caller to dispose of.
"""

from __future__ import annotations

import time
from typing import Final, NamedTuple

from gateway.breakers.models import model_of
from gateway.breakers.permit import ANSWERED, UNCLEAR, UNREACHED, Permit
from gateway.errors import (
    ConnectFailed,
    ConnectionBroken,
    PoolExhausted,
    StaleConnection,
    UpstreamError,
    UpstreamTimeout,
)
from gateway.request import Outcome, Request, Response
from gateway.retries.budget import RetryBudget
from gateway.telemetry.cells import Cells
from gateway.upstreams.backend import Backend
from gateway.upstreams.pool import Pool
from gateway.upstreams.retry_after import retry_after_ns

IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"))  # RFC 9110 section 9.2.2

#: Statuses with which a backend says "not now": reason for a retry (if the route allows it) and for the ladder.
UNAVAILABLE: Final = frozenset((429, 502, 503, 504))


def _outcome(status: int) -> Outcome:
    if status in (429, 503):
        return Outcome.DROPPED  # alive, and says it is overloaded
    return Outcome.FAILURE if status >= 500 and status != 501 else Outcome.SUCCESS


_OUTCOMES: Final = tuple(_outcome(status) for status in range(1000))


class RetryRules(NamedTuple):
    """`on` holds "connect", "reset" or a status as text; `replayable`: any method may run twice."""

    attempts: int
    on: frozenset[str]
    replayable: bool
    budget: RetryBudget
    retries_cell: int
    denied_cell: int


class Answer:
    """Either a response, or the last error, or neither: nobody could be asked."""

    __slots__ = ("attempts", "backend", "error", "response")

    def __init__(
        self, response: Response | None, error: UpstreamError | None, backend: Backend | None, attempts: int
    ) -> None:
        self.response = response
        self.error = error
        self.backend = backend
        self.attempts = attempts


def _reason(error: UpstreamError) -> str:
    if isinstance(error, ConnectFailed):
        return "connect"
    return "reset" if isinstance(error, (StaleConnection, ConnectionBroken)) else ""


class Caller:
    """One per worker."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells

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
        """One answer from `pool` before `deadline` (monotonic nanoseconds).

        Running out of time counts against a backend only if it had at least `fair` nanoseconds: a caller who is
        in too great a hurry must not open the breaker for everybody else.
        """
        if pool.per_model:
            request.model = request.named or model_of(target)
        tried: list[Backend] = []
        may_run_twice = request.stream is None and (
            request.method in IDEMPOTENT or (rules is not None and rules.replayable)
        )
        attempts = 0
        replayed = False
        fresh = False
        response: Response | None = None
        error: UpstreamError | None = None
        backend: Backend | None = None
        while True:
            now = time.monotonic_ns()
            left = deadline - now
            if left <= 0:
                break
            chosen = pool.pick(request, tried, now)
            if chosen is None:
                break
            permit = chosen.gate_for(request).try_acquire(now)
            if permit is None:
                tried.append(chosen)
                continue
            if attempts and rules is not None:
                if not fresh and not rules.budget.withdraw(now):
                    self._cells.add(rules.denied_cell)
                    permit.gate.release(permit, Outcome.IGNORE, now)
                    break
                self._cells.add(rules.retries_cell)
            if response is not None:
                response.discard()
                response = None
            attempts += 1
            backend = chosen
            outcome = Outcome.IGNORE
            contact = UNCLEAR
            retry_after = 0
            if request.stream is not None:
                permit.gate.heard(permit, 0)  # how long it takes is up to the client
            chosen.inflight += 1
            pool.inflight += 1
            try:
                response = await chosen.connections.ask(
                    request, target, chosen.authority, left, dropped, deadline=deadline / 1e9, fresh=fresh
                )
                error = None
                contact = ANSWERED
                if chosen.reported:
                    chosen.hear(request, response, time.monotonic_ns())
                outcome = _OUTCOMES[response.status]
                if outcome is Outcome.DROPPED:
                    retry_after = retry_after_ns(response)
                if response.status == 504 and left < fair:
                    outcome = Outcome.IGNORE
            except StaleConnection as stale:
                response, error = None, stale
                outcome = Outcome.FAILURE if replayed else Outcome.IGNORE
            except UpstreamTimeout as late:
                response, error = None, late
                outcome = Outcome.FAILURE if left >= fair else Outcome.IGNORE
            except PoolExhausted as full:
                response, error = None, full
                outcome = Outcome.DROPPED
            except UpstreamError as failed:
                response, error = None, failed
                contact = UNREACHED if isinstance(failed, ConnectFailed) else UNCLEAR
                outcome = Outcome.FAILURE
            finally:
                if response is not None and response.stream is not None:
                    permit.gate.heard(permit, time.monotonic_ns() - now)
                    response.stream.then(_Attempt(self, chosen, pool, permit, outcome, now, retry_after).at_the_end)
                else:
                    self.settle(chosen, pool, permit, outcome, now, retry_after, contact)
            if response is not None and response.status not in UNAVAILABLE:
                break
            if isinstance(error, StaleConnection) and not replayed:
                if not may_run_twice:
                    break
                replayed = fresh = True
                continue
            fresh = False
            if rules is None or attempts >= rules.attempts + replayed:
                break
            reason = str(response.status) if response is not None else _reason(error) if error is not None else ""
            if reason not in rules.on or not (may_run_twice or reason == "connect"):
                break
            tried.append(chosen)
        return Answer(response, error, backend, attempts)

    def settle(
        self,
        backend: Backend,
        pool: Pool,
        permit: Permit,
        outcome: Outcome,
        began: int,
        retry_after: int,
        contact: int,
        *,
        streamed: bool = False,
    ) -> None:
        """Ends one attempt: gives its place and its permit back, and counts it."""
        backend.inflight -= 1
        pool.inflight -= 1
        ended = time.monotonic_ns()
        permit.gate.release(permit, outcome, ended, 0 if streamed else ended - began, contact)
        backend.observe(outcome, ended - began, ended, retry_after)
        self._cells.values[backend.series + outcome] += 1
        self._cells.observe(backend.series + 4, ended - began)


class _Attempt:
    """An attempt whose answer streams: it is under way, and proves nothing yet, until the stream ends."""

    __slots__ = ("_backend", "_began", "_caller", "_outcome", "_permit", "_pool", "_retry_after")

    def __init__(
        self,
        caller: Caller,
        backend: Backend,
        pool: Pool,
        permit: Permit,
        outcome: Outcome,
        began: int,
        retry_after: int,
    ) -> None:
        self._caller = caller
        self._backend = backend
        self._pool = pool
        self._permit = permit
        self._outcome = outcome
        self._began = began
        self._retry_after = retry_after

    def at_the_end(self, error: Exception | None) -> None:
        outcome = self._outcome
        if isinstance(error, UpstreamError):
            outcome = Outcome.FAILURE
        elif error is not None and outcome is Outcome.SUCCESS:
            outcome = Outcome.IGNORE  # the client went away; a status that says no is proof without its body
        self._caller.settle(
            self._backend, self._pool, self._permit, outcome, self._began, self._retry_after, ANSWERED, streamed=True
        )
