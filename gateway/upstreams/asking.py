"""One request on its way to an answer: try after try, as `retries.decide` says and the pool's budget allows.

Invariants: a backend is never asked twice in a row, unless the route says so; what was reserved of the budget is spent
when the try is sent, or given back; a connection that turns out to be stale is replayed once on a new one, at no cost
(RFC 9112 section 9.3.1); a failed try's answer is kept until the next one is sent, for it may be all there is.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from gateway.errors import ConnectFailed, PoolExhausted, UpstreamError
from gateway.request import Request, Response
from gateway.retries.budget import NOTHING
from gateway.retries.decide import Failed, Others, Step, decide
from gateway.retries.rules import RetryRules, may_run_twice
from gateway.upstreams.attempt import Attempt
from gateway.upstreams.backend import Backend
from gateway.upstreams.pool import Pool
from gateway.upstreams.race import Race

if TYPE_CHECKING:
    from gateway.upstreams.caller import Caller


class Answer:
    """Either a response, or the last error, or neither: nobody could be asked.

    `attempts` counts all that were sent, `hedges` those of them that were sent beside another.
    """

    __slots__ = ("attempts", "backend", "error", "hedges", "response")

    def __init__(
        self,
        response: Response | None,
        error: UpstreamError | None,
        backend: Backend | None,
        attempts: int,
        hedges: int = 0,
    ) -> None:
        self.response = response
        self.error = error
        self.backend = backend
        self.attempts = attempts
        self.hedges = hedges

    @property
    def reached(self) -> bool:
        """Whether a backend may have seen the request."""
        if self.response is not None or self.attempts > 1:
            return True
        return self.attempts == 1 and not isinstance(self.error, (ConnectFailed, PoolExhausted))


class Asking:
    """What is known of one request while it is tried. Arguments as of `Caller.ask`."""

    __slots__ = (
        "_fresh", "_not_before", "_replayed", "attempts", "caller", "deadline", "dropped", "fair", "following",
        "hedges", "last", "paid", "pool", "request", "rules", "target", "tried", "tries", "twice",
    )  # fmt: skip

    def __init__(
        self,
        caller: Caller,
        pool: Pool,
        request: Request,
        target: bytes,
        deadline: int,
        rules: RetryRules | None,
        dropped: frozenset[bytes],
        fair: int,
    ) -> None:
        self.caller = caller
        self.pool = pool
        self.request = request
        self.target = target
        self.deadline = deadline
        self.rules = rules
        self.dropped = dropped
        self.fair = fair
        self.twice = request.stream is None and may_run_twice(rules, request.method, request.headers)
        self.attempts = 1
        self.tries = 1  # attempts that were neither hedges nor replays
        self.hedges = 0
        self.tried: list[Backend] = []  # whom not to ask
        self.last: list[Backend] = []  # whom the last try asked
        self.paid = NOTHING  # what is reserved of the budget
        self.following: Attempt | None = None  # what is sent next, its permit taken already
        self._not_before = 0  # the latest that a Retry-After amounts to
        self._replayed = False
        self._fresh = False  # the next try is to have a new connection

    async def first(self, attempt: Attempt) -> Answer:
        """Runs the first attempt, with an eye on the clock, and what follows."""
        return await self._to_the_end(attempt, ran=False)

    async def after(self, attempt: Attempt) -> Answer:
        """Goes on from the first attempt, which was run and is not simply good."""
        self.sent_to(attempt.backend)
        return await self._to_the_end(attempt, ran=True)

    async def _to_the_end(self, attempt: Attempt, *, ran: bool) -> Answer:
        try:
            if not ran:
                attempt = await self._run(attempt)
            while not self.final(attempt):
                following = await self._next(attempt)
                if following is None:
                    break
                attempt.let_go()
                self.attempts += 1
                attempt = await self._run(following)
        except BaseException:
            attempt.let_go()
            raise
        finally:
            if self.paid != NOTHING:
                self._give_back()
            if self.following is not None:
                self.following.forgo()
        if self.rules is not None:
            self.caller.cells.add(self.rules.cells.wasted, self.attempts - (attempt.response is not None))
        return Answer(attempt.response, attempt.error, attempt.backend, self.attempts, self.hedges)

    async def _run(self, attempt: Attempt) -> Attempt:
        """One try. Where it is watched another attempt may be the one that counts in the end."""
        self.last = []
        self.sent_to(attempt.backend)
        rules = self.rules
        if rules is not None and rules.watched and self.twice:
            return await Race(self, rules).run(attempt)
        await self.exchange(attempt)
        return attempt

    async def exchange(self, attempt: Attempt) -> None:
        """The attempt itself."""
        fresh, self._fresh = self._fresh, False
        await attempt.run(self.request, self.target, self.deadline, self.dropped, self.fair, fresh)

    def sent_to(self, backend: Backend) -> None:
        """Notes whom the present try asks."""
        self.last.append(backend)
        self.tried.append(backend)

    def final(self, attempt: Attempt) -> bool:
        """Whether the attempt's answer is the client's: no rule would have it repeated."""
        response = attempt.response
        if response is None:
            return False
        return response.status < 400 or self.rules is None or attempt.reason not in self.rules.on

    # -- what follows -------------------------------------------------------------------------------------------

    async def _next(self, failed: Attempt) -> Attempt | None:
        """The attempt that follows a failed one, or None. Waits for it to be time."""
        if failed.stale and self.twice and not self._replayed:
            return self._replay()
        rules = self.rules
        if rules is None:
            return None
        now = time.monotonic_ns()
        following, self.following = self.following, None
        if following is not None:
            return self._follow(following, "timeout", now)
        self._not_before = max(self._not_before, now + failed.asks_to_wait)
        others = self.others(now)
        told = failed.failed(self._not_before - now)
        step = self.decide(told, others, now)
        if not step.again:
            return None
        free = told.unseen and not step.pause  # the pool had no work of it, and somebody else has not been asked
        if not (free or self.paid != NOTHING or self.reserve(now)):
            return None
        if step.pause:
            await asyncio.sleep(step.pause / 1e9)
            now = time.monotonic_ns()
        following = self.another(now, others)
        return self._follow(following, failed.reason, now) if following is not None else None

    def _follow(self, following: Attempt, reason: str, now: int) -> Attempt:
        """Counts a retry, which is sent now."""
        assert self.rules is not None
        if self.paid != NOTHING:
            self.spend(now)
        self.tries += 1
        self.caller.cells.add(self.rules.cells.retries[reason])
        following.began = now
        return following

    def set_aside(self, now: int) -> bool:
        """Takes up the attempt that is to follow, before the present one is called off: whoever is there to be asked
        may have no permit left to give, and a try that is called off for nobody would have been an answer.
        """
        if not self.reserve(now):
            return False
        self.following = self.another(now, self.others(now))
        if self.following is None:
            self._give_back()
        return self.following is not None

    def _replay(self) -> Attempt | None:
        self._replayed = self._fresh = True
        self.tried = []
        return self.another(time.monotonic_ns(), Others.FRESH)

    def another(self, now: int, others: Others) -> Attempt | None:
        """An attempt at one of `others`, or at anybody if there are none."""
        if others is not Others.FRESH:
            self.tried = list(self.last) if others is Others.TRIED else []
        return self.caller.begin(self.pool, self.request, self.tried, now) if now < self.deadline else None

    def decide(self, failed: Failed, others: Others, now: int) -> Step:
        """What the rules say of a try that failed."""
        rules = self.rules
        assert rules is not None
        return decide(rules, failed, self.tries, others, self.deadline - now, twice=self.twice, rand=self.caller.draw())

    def others(self, now: int) -> Others:
        """Whom the pool has beside those that the last try asked."""
        if self.pool.has_other(self.request, self.tried, now):
            return Others.FRESH
        return Others.TRIED if self.pool.has_other(self.request, self.last, now) else Others.NONE

    # -- the budget ---------------------------------------------------------------------------------------------

    def reserve(self, now: int) -> bool:
        """Holds a retry of the budget; a refusal is counted."""
        self.paid = self.pool.budget.reserve(now)
        if self.paid == NOTHING and self.rules is not None:
            self.caller.cells.add(self.rules.cells.denied)
        return self.paid != NOTHING

    def spend(self, now: int) -> None:
        """What was held is sent."""
        self.paid = NOTHING
        self.pool.budget.spend(now)

    def _give_back(self) -> None:
        paid, self.paid = self.paid, NOTHING
        self.pool.budget.give_back(paid)
