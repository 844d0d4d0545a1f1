"""One try with an eye on the clock: hedged when it is late, and called off when its own time is over.

Contract: `run` returns the attempt that counts, the first whose answer is good, or the last to fail. The try itself
runs in the caller's task; only a hedge gets one of its own, so a try that is not late costs a timer and nothing else.
To call the try off, its task is cancelled and says so itself (`asyncio.timeout` does the same): that happens only while
it waits for its backend, and a cancellation from outside is never taken for ours.
Invariants: whoever loses is called off where it runs (the connection closes, or the link says CANCEL) and proves
nothing; all are called off if the client leaves; a try is called off for its own time (`per_try`) only once the next
one is set aside, with its permit, and follows at once: a pool that is slow as a whole is not made to answer nobody.
That time runs from the last attempt that was sent, hedges included.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Final

from gateway.retries.budget import NOTHING
from gateway.retries.decide import Failed, Others
from gateway.retries.rules import RetryRules
from gateway.upstreams.attempt import CUT, LOST, Attempt

if TYPE_CHECKING:
    from gateway.upstreams.asking import Asking


AGAIN: Final = 4  # part of its delay after which a hedge that the budget denied is due again
ASKS: Final = 3  # times that the budget is asked for one hedge, the first time for what it can spare


class Race:
    """Of one try of `asking`. Everything happens in the event loop's thread, between its turns."""

    __slots__ = (
        "_asked", "_asking", "_due", "_ends", "_failed", "_hedges", "_left", "_loop", "_main", "_over", "_paid",
        "_rules", "_task", "_timer", "_waiter", "_winner",
    )  # fmt: skip

    def __init__(self, asking: Asking, rules: RetryRules) -> None:
        self._asking = asking
        self._rules = rules
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._left = rules.hedge.most - asking.hedges if rules.hedge is not None else 0
        self._due = 0  # when a hedge is to be sent; 0: none is
        self._ends = 0  # when the try's own time is over; 0: with the request's
        self._main: Attempt | None = None  # while it runs
        self._hedges: dict[Attempt, asyncio.Task[None] | None] = {}  # while they run
        self._winner: Attempt | None = None
        self._failed: Attempt | None = None  # the last that failed
        self._over = False
        self._paid = NOTHING  # what is reserved of the budget for a hedge
        self._asked = 0  # how often for the one that is due
        self._timer: asyncio.TimerHandle | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def run(self, main: Attempt) -> Attempt:
        """Runs the attempt to its end, or until another has won."""
        self._main = main
        self._sent(main.began)
        self._watch(main.began)
        try:
            await self._asking.exchange(main)
            self._main = None
            self._learn(main)
            self._ended(main)
            while self._winner is None and self._hedges:
                self._waiter = self._loop.create_future()
                await self._waiter
        except BaseException:
            self._drop(self._winner)
            self._drop(self._failed)
            raise
        finally:
            self._main = None
            self._close()
        counts = self._winner
        if counts is None:
            counts = self._failed
            assert counts is not None
        else:
            self._drop(self._failed)
        return counts

    def _learn(self, main: Attempt) -> None:
        """How long a try took; one that was called off would have taken longer."""
        hedge = self._rules.hedge
        if hedge is not None and (main.fate or self._asking.final(main)):
            now = time.monotonic_ns()
            hedge.latencies.add(now - main.began, now)

    def _ended(self, attempt: Attempt) -> None:
        if self._winner is not None:
            attempt.let_go()
        elif self._asking.final(attempt):
            self._winner = attempt
        else:
            self._drop(self._failed)
            self._failed = attempt

    def _drop(self, attempt: Attempt | None) -> None:
        if attempt is not None:
            attempt.let_go()

    def _close(self) -> None:
        """Calls off whatever still runs."""
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._paid != NOTHING:
            self._asking.pool.budget.give_back(self._paid)
        if self._hedges:
            self._asking.caller.cells.add(self._rules.cells.hedges_cancelled, len(self._hedges))
            for task in list(self._hedges.values()):
                if task is not None:
                    task.cancel()

    # -- the clock ----------------------------------------------------------------------------------------------

    def _sent(self, now: int) -> None:
        """An attempt was sent: when the next is due, and when the try's own time is over."""
        rules = self._rules
        delay = 0
        if rules.hedge is not None and self._left > 0:
            delay = rules.hedge.delay(now)
            # A percentile says how many are late, and not that each of them is late enough to be worth its share.
            self._asked = 0 if rules.hedge.share else 1
        self._due = now + delay if delay else 0
        self._ends = now + rules.per_try if rules.per_try and self._asking.tries < rules.attempts else 0

    def _watch(self, now: int) -> None:
        """Sets the timer. Event loops round to a millisecond, so it is rounded up: nobody is hedged early."""
        due = min(self._due, self._ends) if self._due and self._ends else self._due or self._ends
        if due:
            self._timer = self._loop.call_later(max(math.ceil((due - now) / 1e6), 1) / 1e3, self._late)

    def _late(self) -> None:
        self._timer = None
        now = time.monotonic_ns()
        if self._ends and self._ends <= now:
            if self._call_off(now):
                return
            self._ends = now + self._rules.per_try  # the budget may have more by then
        if self._due and self._due <= now:
            self._consider(now)
        self._watch(now)

    def _consider(self, now: int) -> None:
        """A hedge is due. If the budget has nothing for it, it is due once more, soon: one that is sent very late does
        little good, and takes of the budget what one in time would do more with. After a percentile the first question
        is for what the budget can spare: where it is short, those are hedged that are late still a little later.
        """
        asking, hedge = self._asking, self._rules.hedge
        assert hedge is not None
        self._due = 0
        if asking.others(now) is Others.NONE and not self._rules.same_backend:
            return
        self._paid = asking.pool.budget.reserve(now, spare=self._asked == 0)
        if self._paid != NOTHING:
            self._left -= 1
            self._loop.create_task(self._hedge())
            return
        if self._asked == 1:
            asking.caller.cells.add(self._rules.cells.hedges_denied)
        self._asked += 1
        if self._asked < ASKS:
            self._due = now + hedge.delay(now) // AGAIN

    def _call_off(self, now: int) -> bool:
        """Ends all attempts if another try may be made, which is then reserved."""
        asking = self._asking
        step = asking.decide(Failed("timeout"), asking.others(now), now)
        if not step.again or not asking.set_aside(now):
            return False
        for attempt, task in self._hedges.items():
            attempt.fate = CUT
            if task is not None:
                task.cancel()
        self._call_off_main(CUT)
        return True

    def _call_off_main(self, fate: int) -> None:
        if self._main is not None and self._task is not None:
            self._main.fate = fate
            self._task.cancel()

    # -- a second attempt ---------------------------------------------------------------------------------------

    async def _hedge(self) -> None:
        """A task of its own. It takes up what it needs itself: one that is cancelled before it began holds nothing."""
        attempt = self._begin(time.monotonic_ns())
        if attempt is None:
            return
        asking = self._asking
        self._hedges[attempt] = asyncio.current_task()
        try:
            await attempt.run(asking.request, asking.target, asking.deadline, asking.dropped, asking.fair, False)
            if self._over:
                attempt.let_go()
                return
            self._ended(attempt)
            if self._winner is attempt:
                asking.caller.cells.add(self._rules.cells.hedges_won)
                self._call_off_main(LOST)
        finally:
            del self._hedges[attempt]
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)

    def _begin(self, now: int) -> Attempt | None:
        if self._over:
            return None
        asking = self._asking
        others = asking.others(now)
        attempt = None
        if others is not Others.NONE or self._rules.same_backend:
            attempt = asking.another(now, others)
        if attempt is None:  # whoever was there when it was due has given its last permit to another request
            paid, self._paid = self._paid, NOTHING
            asking.pool.budget.give_back(paid)
            return None
        self._paid = NOTHING
        asking.pool.budget.spend(now)
        asking.attempts += 1
        asking.hedges += 1
        asking.sent_to(attempt.backend)
        asking.caller.cells.add(self._rules.cells.hedges_sent)
        self._sent(now)
        if self._timer is not None:
            self._timer.cancel()
        self._watch(now)
        return attempt
