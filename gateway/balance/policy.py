"""What every balancing policy is, and what it may know of a backend.

`settle` is told of every change: members that came or went, and members whose `share` changed (away, back, still in
their slow start). What a policy needs for its picks it computes there, so that a pick is cheap. `pick` returns a member
whose share is above zero and that is not in `tried`, or None where there is none.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from gateway.balance.load import Load
from gateway.request import Outcome, Request

Rand = Callable[[], float]  # a float in [0, 1)


class Gauge:
    """What a policy remembers of one candidate's answers; times are nanoseconds."""

    __slots__ = ()

    def observe(self, candidate: Candidate, outcome: Outcome, took: int, found: int, now: int) -> None:
        """Takes the end of one attempt, which found so many of ours in flight before it. `took` 0 is not known."""
        raise NotImplementedError


class Candidate:
    """A backend as a policy sees it. What is here survives a reload, for it belongs to the backend.

    `weight` is as configured; `share` is the part of it that is in force now: less during a slow start, 0 while the
    candidate must not be picked.
    """

    __slots__ = (
        "gauge", "identity", "inflight", "load", "priority", "resting", "share", "turn", "weight", "zone",
    )  # fmt: skip

    def __init__(self, identity: bytes, weight: int = 1, priority: int = 0, zone: str = "") -> None:
        self.identity = identity  # what consistent hashing knows it by
        self.weight = weight
        self.priority = priority  # 0 is asked first
        self.zone = zone
        self.share = float(weight)
        self.inflight = 0
        self.resting = 0  # until when it asked to be left alone, monotonic nanoseconds
        self.turn = 0.0  # belongs to weighted round-robin
        self.gauge: Gauge | None = None  # belongs to the policies that go by latency
        self.load = Load()

    @property
    def recovered_at(self) -> int:
        """When it came back, or was added to a gateway that runs, monotonic nanoseconds; 0 for never."""
        return 0

    def outstanding(self, now: int) -> float:
        """Requests in flight at the backend: what it reported of others', if that is fresh, and ours."""
        return self.inflight + self.load.others(now)


class Balancer:
    """Base of all policies; `rand` is its only source of chance. `reads_load`: it goes by what backends report."""

    __slots__ = ("rand", "reads_load")

    def __init__(self, rand: Rand = random.random) -> None:
        self.rand = rand
        self.reads_load = False

    def inherit(self, before: Balancer) -> None:
        """Takes over from its predecessor, of the same members before a reload, what is dear to make."""

    def settle(self, members: Sequence[Candidate]) -> None:
        """Takes the members, those that must not be picked now with a share of 0."""
        raise NotImplementedError

    def pick(self, request: Request, tried: Sequence[Candidate], total: int, now: int) -> Candidate | None:
        """`total` is the number of requests in flight at all members together; `now` is monotonic nanoseconds."""
        raise NotImplementedError

    def point(self, request: Request) -> float:  # noqa: ARG002 - those that hash go by it
        """A number in [0, 1) by which a request is given to one of several groups of members."""
        return self.rand()
