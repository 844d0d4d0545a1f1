"""Who waits for a place: lines by priority, in them fair shares, in those the earliest deadline first.

* The line of a higher priority is served first. A line that a higher one leaves nothing to is served again as soon as
  there is anything left.
* In a line every flow (a tenant) gets the same: start-time fair queueing with one virtual clock per line. A flow that
  was idle starts at the clock, so nothing is saved up, and nobody pays for what was idle.
* In a flow the earliest deadline is first. While the backlog is long and grows the newest is: what came last can still
  be answered quickly, what has waited long is perhaps no longer waited for.
* A line under standing overload (who decides that is `admission`) keeps `short` entries, or one of every flow up to
  twice as many, and refuses the rest at once.
  Whoever must go is of the flow that waits for most; of that, the oldest that has waited for less than `QUICK`, so that
  every refusal is quick, or else the one that just comes. Who has waited longer is served next.

Invariants: never more than `most` wait; every ticket that was added ends exactly once: taken by `next`, told by `wake`
that it is refused, or removed by its owner.

Sources: P. Goyal et al., "Start-time Fair Queueing" (SIGCOMM 1996); K. Nichols, V. Jacobson, "Controlling Queue Delay"
(ACM Queue 2012); B. Maurer, "Fail at Scale" (ACM Queue 2015: adaptive LIFO); RFC 8290 (who drops: the fattest flow).
Times are monotonic nanoseconds.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import Final

PRIORITIES: Final = ("critical", "default", "batch")
REASONS: Final = ("full", "late", "overload")
FULL: Final = 0  # more than may wait
LATE: Final = 1  # cannot be answered before its deadline
OVERLOAD: Final = 2

BURST: Final = 16  # entries beside the places: in Poisson traffic below 3/4 of capacity one in 100,000 finds as many
QUICK: Final = 3_000_000  # a refusal under standing overload comes sooner than this
REMEMBERED: Final = 1024  # flows without entries that have had more than the others


class Ticket:
    """One that waits. `mark` is >= 0 once it has a place, `reason` once it is refused; then `wake` is called.

    `wake` says whether anybody is still there.
    """

    __slots__ = ("deadline", "flow", "mark", "priority", "reason", "since", "waiting", "wake")

    def __init__(self, priority: int, flow: bytes, since: int, deadline: int, wake: Callable[[], bool]) -> None:
        self.priority = priority
        self.flow = flow
        self.since = since
        self.deadline = deadline
        self.wake = wake
        self.waiting = False
        self.mark = -1
        self.reason = -1


class Flow:
    """The entries of one tenant. Both orders keep entries that no longer wait until they come up."""

    __slots__ = ("arrived", "due", "size", "turn")

    def __init__(self, turn: float) -> None:
        self.turn = turn  # on the line's virtual clock: when its next entry is due
        self.size = 0
        self.due: list[tuple[int, int, Ticket]] = []
        self.arrived: deque[Ticket] = deque()

    def add(self, ticket: Ticket, number: int) -> None:
        if len(self.arrived) > 2 * self.size + BURST:
            self.arrived = deque(each for each in self.arrived if each.waiting)
            self.due = [each for each in self.due if each[2].waiting]
            heapq.heapify(self.due)
        heapq.heappush(self.due, (ticket.deadline, number, ticket))
        self.arrived.append(ticket)
        self.size += 1

    def oldest(self) -> Ticket:
        while not self.arrived[0].waiting:
            self.arrived.popleft()
        return self.arrived[0]

    def newest(self) -> Ticket:
        while not self.arrived[-1].waiting:
            self.arrived.pop()
        return self.arrived[-1]

    def first_due(self) -> Ticket:
        while not self.due[0][2].waiting:
            heapq.heappop(self.due)
        return self.due[0][2]

    def oldest_since(self, since: int) -> Ticket | None:
        for ticket in self.arrived:
            if ticket.waiting and ticket.since >= since:
                return ticket
        return None


class Line:
    """The entries of one priority."""

    __slots__ = ("_rested", "clock", "flows", "grows", "overloaded", "priority", "size")

    def __init__(self, priority: int = 0) -> None:
        self.priority = priority
        self.flows: dict[bytes, Flow] = {}  # those with entries
        self.size = 0
        self.clock = 0.0
        self.overloaded = False
        self.grows = False  # it is long, and becomes longer
        self._rested: dict[bytes, float] = {}  # turns of flows without entries that are ahead of the clock

    def add(self, ticket: Ticket, number: int) -> None:
        flow = self.flows.get(ticket.flow)
        if flow is None:
            flow = self.flows[ticket.flow] = Flow(max(self._rested.pop(ticket.flow, 0.0), self.clock))
        flow.add(ticket, number)
        ticket.waiting = True
        self.size += 1

    def remove(self, ticket: Ticket) -> None:
        ticket.waiting = False
        self.size -= 1
        flow = self.flows[ticket.flow]
        flow.size -= 1
        if flow.size:
            return
        del self.flows[ticket.flow]
        if flow.turn > self.clock:
            if len(self._rested) >= REMEMBERED:
                self._rested = {key: turn for key, turn in self._rested.items() if turn > self.clock}
            if len(self._rested) < REMEMBERED:
                self._rested[ticket.flow] = flow.turn

    def first(self, now: int, *, newest: bool) -> Ticket:
        """The entry that is to be served now; its flow has then had its turn."""
        best: Flow | None = None
        for flow in self.flows.values():
            if best is None or flow.turn < best.turn:
                best = flow
        assert best is not None
        self.clock = best.turn
        best.turn += 1.0
        if not newest:
            return best.first_due()
        if self.overloaded:
            oldest = best.oldest()
            if now - oldest.since >= QUICK:
                return oldest
        return best.newest()

    def fattest(self) -> Flow:
        """The flow whose last entry is served last."""
        worst: Flow | None = None
        for flow in self.flows.values():
            if worst is None or flow.turn + flow.size > worst.turn + worst.size:
                worst = flow
        assert worst is not None
        return worst

    def kept(self, key: bytes, short: int) -> int:
        """How many may wait under standing overload: `short`, and up to twice as many if they are of so many flows."""
        flows = len(self.flows) + (key not in self.flows)
        return max(short, min(2 * short + 1, flows))

    def victim(self, ticket: Ticket, now: int) -> Ticket | None:
        """Who makes room for `ticket`; None: it must go itself."""
        fattest = self.fattest()
        own = self.flows.get(ticket.flow)
        last = own.turn + own.size if own is not None else max(self.clock, self._rested.get(ticket.flow, 0.0))
        if own is not fattest and fattest.turn + fattest.size > last + 1.0:
            return fattest.oldest_since(now - QUICK) or fattest.oldest()
        return own.oldest_since(now - QUICK) if own is not None else None


class Queue:
    """All lines. `most` is how many may wait."""

    __slots__ = ("_number", "lines", "most", "refused", "size")

    def __init__(self, most: int) -> None:
        self.most = most
        self.lines = [Line(priority) for priority in range(len(PRIORITIES))]
        self.size = 0
        self.refused = [0 for _ in REASONS]
        self._number = 0

    @property
    def overloaded(self) -> bool:
        """Whether a line is."""
        for line in self.lines:  # noqa: SIM110 - compiled, a generator costs more
            if line.overloaded:
                return True
        return False

    @property
    def urgent(self) -> int:
        """The highest priority that waits."""
        for line in self.lines:
            if line.size:
                return line.priority
        return len(self.lines)

    def add(self, ticket: Ticket, now: int, short: int) -> bool:
        """Whether it waits now; if not it is refused, as `ticket.reason` says. `short`: see the module."""
        line = self.lines[ticket.priority]
        if line.overloaded and line.size >= line.kept(ticket.flow, short):
            victim = line.victim(ticket, now)
            if victim is None:
                return self.deny(ticket, OVERLOAD)
            self.refuse(victim, OVERLOAD)
        elif self.size >= self.most:
            lowest = len(self.lines) - 1
            while lowest > ticket.priority and not self.lines[lowest].size:
                lowest -= 1
            if lowest == ticket.priority and line.size <= BURST:  # too short for the newest to be better than the rest
                return self.deny(ticket, FULL)
            self.refuse(self.lines[lowest].fattest().oldest(), FULL)
        self._number += 1
        self.size += 1
        line.add(ticket, self._number)
        return True

    def deny(self, ticket: Ticket, reason: int) -> bool:
        """Refuses one that does not wait yet."""
        ticket.reason = reason
        self.refused[reason] += 1
        return False

    def remove(self, ticket: Ticket) -> None:
        """Takes out one that waits; it is not told."""
        self.size -= 1
        self.lines[ticket.priority].remove(ticket)

    def refuse(self, ticket: Ticket, reason: int) -> None:
        """Takes out one that waits, and tells it."""
        self.remove(ticket)
        ticket.reason = reason
        self.refused[reason] += 1
        ticket.wake()

    def next(self, now: int, needed: int) -> Ticket | None:
        """Takes out the one to be served now; whoever has less than `needed` left is refused on the way."""
        for line in self.lines:
            while line.size:
                ticket = line.first(now, newest=line.overloaded or line.grows)
                if ticket.deadline - now < needed:
                    self.refuse(ticket, LATE)
                    continue
                self.remove(ticket)
                return ticket
        return None

    def sweep(self, now: int, needed: int, patience: int) -> None:
        """Refuses whoever has less than `needed` left, or waits for `patience` in an overloaded line."""
        for line in self.lines:
            for flow in list(line.flows.values()):
                while flow.size and flow.first_due().deadline - now < needed:
                    self.refuse(flow.first_due(), LATE)
                while line.overloaded and flow.size and now - flow.oldest().since > patience:
                    self.refuse(flow.oldest(), OVERLOAD)

    def shed(self, line: Line, keep: int) -> None:
        """Leaves the newest `keep` entries of a line, the same of every flow."""
        while line.size > keep:
            self.refuse(line.fattest().oldest(), OVERLOAD)

    def __repr__(self) -> str:
        waiting = ", ".join(f"{line.size} {name}" for name, line in zip(PRIORITIES, self.lines, strict=True))
        return f"<Queue {waiting}>"
