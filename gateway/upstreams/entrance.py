"""How requests enter a pool and leave it: the event loop's side of `admission`.

Invariants: what was entered is left once, by its mark; whoever waits holds nothing else; a request that is cancelled
while it waits, or in the moment between being given a place and running again, leaves nothing behind. While somebody
waits, deadlines are looked at every `SWEEP`.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from gateway.admission.admission import Admission
from gateway.admission.priority import PriorityRules
from gateway.admission.queue import Ticket
from gateway.errors import UpstreamTimeout
from gateway.request import Outcome, Request
from gateway.upstreams.asking import Answer
from gateway.upstreams.pool import Pool

SWEEP: Final = 0.002  # seconds

UNCOUNTED: Final = -1  # in the place of a mark: takes no place
NO_PLACE: Final = -2  # and below: none, for the reason that is the difference


class _Seat:
    """Wakes the one that waits."""

    __slots__ = ("future",)

    def __init__(self, future: asyncio.Future[None]) -> None:
        self.future = future

    def wake(self) -> bool:
        if self.future.done():
            return False  # cancelled, and not yet told
        self.future.set_result(None)
        return True


class _Sweep:
    """One admission's timer; it runs while somebody waits."""

    __slots__ = ("_admission", "_entrance", "_loop")

    def __init__(self, entrance: Entrance, admission: Admission, loop: asyncio.AbstractEventLoop) -> None:
        self._entrance = entrance
        self._admission = admission
        self._loop = loop

    def run(self) -> None:
        self._admission.sweep(time.monotonic_ns())
        if self._admission.queue.size:
            self._loop.call_later(SWEEP, self.run)
        else:
            self._entrance.swept.discard(self._admission)


class Entrance:
    """One per worker."""

    __slots__ = ("swept",)

    def __init__(self) -> None:
        self.swept: set[Admission] = set()

    def enter(self, pool: Pool, rules: PriorityRules, request: Request, now: int) -> int:
        """A place's mark; UNCOUNTED for what takes none; NO_PLACE where none is free.

        A body or protocol that streams lasts as long as the client likes, which says nothing about the pool and must
        not keep others waiting: it is bounded by the pool's `max_inflight` alone.
        """
        if pool.inflight >= pool.max_inflight:
            return NO_PLACE
        if request.stream is not None:
            return UNCOUNTED
        mark = pool.admission.enter(rules.of(request), now)
        return mark if mark >= 0 else NO_PLACE

    async def wait_for_place(self, pool: Pool, rules: PriorityRules, request: Request, deadline: int) -> int:
        """A place's mark in the end, or NO_PLACE less why there is none."""
        tenant = request.tenant or request.client or request.peer
        waited = await self.wait(pool.admission, rules.of(request), tenant, deadline, time.monotonic_ns())
        return waited if waited >= 0 else NO_PLACE + 1 + waited

    async def wait(self, admission: Admission, priority: int, flow: bytes, deadline: int, now: int) -> int:
        """The mark of a place once there is one; or -1 less the reason why there will be none."""
        loop = asyncio.get_running_loop()
        seat = _Seat(loop.create_future())
        ticket = Ticket(priority, flow, now, deadline, seat.wake)
        if not admission.wait(ticket, now):
            return -1 - ticket.reason
        if admission not in self.swept:
            self.swept.add(admission)
            loop.call_later(SWEEP, _Sweep(self, admission, loop).run)
        try:
            await seat.future
        except asyncio.CancelledError:
            admission.leave(ticket, time.monotonic_ns())
            raise
        return ticket.mark if ticket.mark >= 0 else -1 - ticket.reason


def leave(admission: Admission, mark: int, began: int, answer: Answer | None) -> int:
    """Gives a place back with what the request's end says about the pool: nothing if it was cancelled (None), not how
    long an answer takes if it was tried more than once. Returns how long the place was held.
    """
    now = time.monotonic_ns()
    took = now - began
    if mark < 0:
        return took
    if answer is None:
        admission.release(mark, took, Outcome.IGNORE, now)
        return took
    response = answer.response
    if response is None:
        outcome = Outcome.IGNORE if isinstance(answer.error, UpstreamTimeout) else Outcome.FAILURE
    elif response.status in (429, 503):
        outcome = Outcome.DROPPED
    else:
        outcome = Outcome.FAILURE if response.status >= 500 else Outcome.SUCCESS
    if answer.attempts == 1:
        admission.release(mark, took, outcome, now)
    else:
        admission.release(0, 0, outcome, now)
    return took
