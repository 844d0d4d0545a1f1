"""One attempt at one backend: what it holds, what came of it, and what that proves.

Invariants: the permit it was made with is released once, and the backend's and the pool's places with it: when the
exchange ends, or for an answer that streams, when the stream does. A client that leaves, another attempt that answered
first (LOST) and a hurried caller prove nothing about the backend; a try whose own time was up (CUT) does.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

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
from gateway.retries.decide import OVERLOAD, Failed
from gateway.upstreams.backend import Backend
from gateway.upstreams.pool import Pool
from gateway.upstreams.retry_after import retry_after_ns

if TYPE_CHECKING:
    from gateway.upstreams.caller import Caller

#: Why an attempt is called off from outside.
LOST: Final = 1
CUT: Final = 2


def _outcome(status: int) -> Outcome:
    if status in (429, 503):
        return Outcome.DROPPED  # alive, and says it is overloaded
    return Outcome.FAILURE if status >= 500 and status != 501 else Outcome.SUCCESS


_OUTCOMES: Final = tuple(_outcome(status) for status in range(1000))


class Attempt:
    """`began` is monotonic nanoseconds. After `run`, `response` or `error` is there; neither, if it was called off."""

    __slots__ = (
        "_caller",
        "_found",
        "_permit",
        "_retry_after",
        "_waited",
        "backend",
        "began",
        "error",
        "fate",
        "outcome",
        "pool",
        "response",
    )

    def __init__(self, caller: Caller, pool: Pool, backend: Backend, permit: Permit, began: int) -> None:
        self._caller = caller
        self._permit = permit
        self._retry_after = 0
        self._found = 0  # in flight at the backend before it
        self._waited = -1  # nanoseconds until an answer that streams began; 0 if that is up to the client
        self.pool = pool
        self.backend = backend
        self.began = began
        self.fate = 0
        self.outcome = Outcome.IGNORE
        self.response: Response | None = None
        self.error: UpstreamError | None = None

    async def run(
        self, request: Request, target: bytes, deadline: int, dropped: frozenset[bytes], fair: int, fresh: bool
    ) -> None:
        """Asks. `deadline` is monotonic nanoseconds; with less than `fair` of them left, lateness proves nothing.

        `fresh` asks for a new connection. Raises CancelledError only if the task is cancelled from outside.
        """
        backend = self.backend
        left = self.enter(request, deadline)
        try:
            response = await backend.connections.ask(
                request, target, backend.authority, left, dropped, deadline=deadline / 1e9, fresh=fresh
            )
        except BaseException as error:
            if not self.broke(error, hurried=left < fair):
                raise
        else:
            self.answered(request, response, hurried=left < fair)

    # The steps of `run`, for who has them in a coroutine already: `enter`, and then one of `broke` and `answered`.

    def enter(self, request: Request, deadline: int) -> int:
        """Takes its places; returns the nanoseconds that are left."""
        if request.stream is not None:
            self._permit.gate.heard(self._permit, 0)  # how long it takes is up to the client
            self._waited = 0
        self._found = self.backend.inflight
        self.backend.inflight += 1
        self.pool.inflight += 1
        return deadline - self.began

    def answered(self, request: Request, response: Response, *, hurried: bool) -> None:
        """The backend answered; an answer that streams goes on."""
        self.response = response
        if self.backend.reported:
            self.backend.hear(request, response, time.monotonic_ns())
        outcome = self.outcome = _OUTCOMES[response.status]
        if outcome is Outcome.DROPPED:
            self._retry_after = retry_after_ns(response)
        elif response.status == 504 and hurried:
            self.outcome = Outcome.IGNORE
        if response.stream is not None:
            took = max(time.monotonic_ns() - self.began, 1)
            self._permit.gate.heard(self._permit, took)
            if self._waited:
                self._waited = took
            response.stream.then(self._at_the_end)
        else:
            self._settle(self.outcome, ANSWERED)

    def broke(self, error: BaseException, *, hurried: bool) -> bool:
        """There is no answer; whether that is for us to deal with, and not to be raised on."""
        contact = UNCLEAR
        if isinstance(error, UpstreamError):
            self.error = error
            if isinstance(error, PoolExhausted):
                self.outcome = Outcome.DROPPED
            elif isinstance(error, ConnectFailed):
                self.outcome = Outcome.FAILURE
                contact = UNREACHED
            elif not isinstance(error, StaleConnection) and not (hurried and isinstance(error, UpstreamTimeout)):
                self.outcome = Outcome.FAILURE
            ours = True
        else:
            ours = isinstance(error, asyncio.CancelledError) and self._called_off()
        self._settle(self.outcome, contact)
        return ours

    def _settle(self, outcome: Outcome, contact: int) -> None:
        self._caller.settle(
            self.backend,
            self.pool,
            self._permit,
            outcome,
            self.began,
            self._retry_after,
            contact,
            self._found,
            self._waited,
        )

    def _called_off(self) -> bool:
        """Whether it was us who cancelled the task, and nobody else."""
        if not self.fate:
            return False
        task = asyncio.current_task()
        if task is None or task.uncancel() > 0:
            return False
        if self.fate == CUT:
            self.error = UpstreamTimeout(f"{self.backend.name} did not answer in the time of one try")
            self.outcome = Outcome.FAILURE
        return True

    def _at_the_end(self, error: Exception | None) -> None:
        outcome = self.outcome
        if isinstance(error, UpstreamError):
            outcome = Outcome.FAILURE
        elif error is not None and outcome is Outcome.SUCCESS:
            outcome = Outcome.IGNORE  # the client went away; a status that says no is proof without its body
        self._settle(outcome, ANSWERED)

    def forgo(self) -> None:
        """It is not sent after all: its permit is given back and proves nothing."""
        self._permit.gate.release(self._permit, Outcome.IGNORE, time.monotonic_ns(), 0, UNCLEAR)

    def let_go(self) -> None:
        """Its answer is not used: what a stream holds is given back."""
        response, self.response = self.response, None
        if response is not None:
            response.discard()

    # -- what came of it ----------------------------------------------------------------------------------------

    @property
    def stale(self) -> bool:
        """Whether it met a connection that the backend had closed already."""
        return isinstance(self.error, StaleConnection)

    @property
    def reason(self) -> str:
        """Why it might be repeated, one of `rules.REASONS`; "" if no retry would mend it."""
        if self.response is not None:
            status = self.response.status
            return str(status) if status >= 400 else ""
        error = self.error
        if isinstance(error, ConnectFailed):
            return "connect"
        if isinstance(error, (StaleConnection, ConnectionBroken)):
            return "reset"
        return "timeout" if self.fate == CUT else ""

    @property
    def asks_to_wait(self) -> int:
        """Nanoseconds of its Retry-After, if it has one."""
        return retry_after_ns(self.response) if self.response is not None else 0

    def failed(self, wait: int) -> Failed:
        """What there is to decide on; `wait` is what is left of the longest Retry-After."""
        reason = self.reason
        overload = reason in OVERLOAD or isinstance(self.error, PoolExhausted)
        return Failed(reason, unseen=reason == "connect", overload=overload, wait=wait)

    def __repr__(self) -> str:
        return f"<Attempt at {self.backend.name}: {self.response or self.error or 'nothing yet'}>"
