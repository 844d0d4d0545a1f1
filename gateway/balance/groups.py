"""The groups a pool's backends are in, by priority and zone, and the way from who may be picked to one pick.

`settle` is told who may be picked, and gives every member its share: its weight, less during a slow start (`ramp.py`),
none while it rests. A backend rests when an answer said "not now" with Retry-After, for as long as that said but at
most `LONGEST_REST`, unless more than half of its group's weight would be resting: then nobody does, for that is no
longer an opinion about one backend. Each group has a balancer of its own and a part of the requests (`levels.py`).

Within a priority a request leaves its own zone for another when the backend picked there has `spill_above` requests or
more in flight for its share and the one picked elsewhere has fewer: zones fill up before they spill.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from gateway.balance.levels import spread
from gateway.balance.policy import Balancer, Candidate
from gateway.balance.ramp import next_step, ramp
from gateway.request import Request

LONGEST_REST: Final = 10_000_000_000  # nanoseconds; what one answer says may concern one client
NEVER: Final = 1 << 62


class Group:
    """Members of one priority, in our own zone (`near`) or elsewhere. `part` is its part of the requests."""

    __slots__ = ("balancer", "members", "near", "part", "priority", "weight")

    def __init__(self, members: list[Candidate], balancer: Balancer, priority: int, *, near: bool) -> None:
        self.members = members
        self.balancer = balancer
        self.priority = priority
        self.near = near
        self.part = 0.0
        self.weight = sum([member.weight for member in members])

    def __repr__(self) -> str:
        zone = "near" if self.near else "far"
        ready = sum(member.share > 0.0 for member in self.members)
        return f"<Group {self.priority} {zone}, {ready} of {len(self.members)} ready, {self.part:.0%}>"


class Groups:
    """Of one pool. `zone` is the gateway's own, or ""; `slow_start` is nanoseconds; `spill_above` 0 means never;
    `before` are the groups before a reload.
    """

    __slots__ = ("_groups", "_members", "_only", "_slow_start", "_spill_above", "review")

    def __init__(
        self,
        members: Sequence[Candidate],
        make: Callable[[], Balancer],
        zone: str = "",
        slow_start: int = 0,
        spill_above: float = 0.0,
        before: Groups | None = None,
    ) -> None:
        self._members = tuple(members)
        self._slow_start = slow_start
        self._spill_above = spill_above
        self.review = 0  # when shares change by themselves: `settle` again
        known: dict[tuple[int, bool], list[Candidate]] = {}
        zoned = bool(zone) and any(member.zone == zone for member in members)
        for member in members:
            far = zoned and member.zone != zone
            known.setdefault((member.priority, far), []).append(member)
        self._groups = [Group(known[at], make(), at[0], near=zoned and not at[1]) for at in sorted(known)]
        for group in self._groups:
            for old in before.all if before is not None else ():
                if old.priority == group.priority and old.near == group.near:
                    group.balancer.inherit(old.balancer)
            group.balancer.settle(group.members)  # now, so that no request waits for a table to be made
        self._only: Balancer | None = None

    @property
    def reads_load(self) -> bool:
        """Whether the policy goes by what backends report."""
        return any(group.balancer.reads_load for group in self._groups)

    @property
    def all(self) -> list[Group]:
        """In order of preference."""
        return self._groups

    def settle(self, picks: Sequence[Candidate], now: int) -> None:
        """Takes who may be picked from now on."""
        self.review = NEVER
        for member in self._members:
            member.share = 0.0
        for pick in picks:
            pick.share = float(pick.weight)
            if self._slow_start and pick.recovered_at:
                part = ramp(pick.recovered_at, self._slow_start, now)
                if part < 1.0:
                    pick.share *= part
                    self.review = min(self.review, next_step(pick.recovered_at, self._slow_start, now))
        ready: list[tuple[float, float]] = []
        for group in self._groups:
            self._rest(group, now)
            ready.append((sum([member.share for member in group.members]), float(group.weight)))
        for group, part in zip(self._groups, spread(ready)):  # noqa: B905 - strict is slow when compiled
            group.part = part
            group.balancer.settle(group.members)
        self._only = self._groups[0].balancer if self._groups and self._groups[0].part >= 1.0 else None
        if self._spill_above and len(self._groups) > 1 and self._groups[0].near:
            self._only = None

    def _rest(self, group: Group, now: int) -> None:
        """Takes the share of those that asked to be left alone, if they are no more than half of the group."""
        resting = [member for member in group.members if member.resting > now and member.share > 0.0]
        if not resting:
            return
        self.review = min([self.review, *[member.resting for member in resting]])
        total = sum([member.share for member in group.members])
        if sum([member.share for member in resting]) * 2.0 <= total:
            for member in resting:
                member.share = 0.0

    def pick(self, request: Request, tried: Sequence[Candidate], total: int, now: int) -> Candidate | None:
        """One of those that may be picked, or None; `total` is what is in flight in the pool."""
        only = self._only
        if only is not None:
            chosen = only.pick(request, tried, total, now)
            return chosen if chosen is not None or not tried else self._elsewhere(request, tried, total, now)
        groups = self._groups
        if not groups:
            return None
        at = 0
        left = groups[0].balancer.point(request)
        for number, group in enumerate(groups):
            if group.part > 0.0:
                at = number
                left -= group.part
                if left < 0.0:
                    break
        group = groups[at]
        chosen = group.balancer.pick(request, tried, int(total * group.part), now)
        if chosen is None:
            return self._elsewhere(request, tried, total, now)
        if self._spill_above and group.near and at + 1 < len(groups) and groups[at + 1].priority == group.priority:
            load = chosen.inflight / chosen.share
            if load >= self._spill_above:
                other = groups[at + 1].balancer.pick(request, tried, total, now)
                if other is not None and other.inflight / other.share < load:
                    return other
        return chosen

    def _elsewhere(self, request: Request, tried: Sequence[Candidate], total: int, now: int) -> Candidate | None:
        """Of the first group that has somebody left, whatever its part."""
        for group in self._groups:
            chosen = group.balancer.pick(request, tried, total, now)
            if chosen is not None:
                return chosen
        return None
