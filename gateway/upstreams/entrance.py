"""Where requests wait for a place at a pool: the event loop's side of `admission`.

Invariants: whoever waits holds nothing else; a request that is cancelled while it waits, or in the moment between being
given a place and running again, leaves nothing behind. While somebody waits, deadlines are looked at every `SWEEP`.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from gateway.admission.admission import Admission
from gateway.admission.queue import Ticket

SWEEP: Final = 0.002  # seconds


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
