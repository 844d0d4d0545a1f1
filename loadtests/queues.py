"""A small world of queues in which balancing policies are watched: pure policies, simulated time, seconds to run.

    python -m loadtests.queues

Servers have slots, service times and a line in order of arrival; requests come as a Poisson process and are given to
`balancer.pick`. What changes at the servers is a schedule. All of it is decided by the seed.

    world = World([Server(slots=4, service=0.02) for _ in range(4)], PeakEwma(rand), rate=700.0, seed=1)
    world.run(30.0)
    world.percentile(0.99)
"""

from __future__ import annotations

import argparse
import heapq
import random
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from gateway.balance.draw import Draw
from gateway.balance.policy import Candidate, Rand
from gateway.balance.registry import BALANCERS, Recipe
from gateway.request import Outcome, Request
from loadtests.load.report import aligned

NS = 1_000_000_000
HASHING = ("maglev", "ring-hash")  # go by the request, and all are alike here
ASKED = Request(b"GET", b"/", b"/", {})


class Balancer(Protocol):
    """What this world asks of a policy; one that is not the gateway's own need not be derived from it."""

    def settle(self, members: Sequence[Candidate]) -> None: ...

    def pick(self, request: Request, tried: Sequence[Candidate], total: int, now: int) -> Candidate | None: ...


@dataclass
class Server:
    """`service` is the mean in seconds, exponential unless `even`; `latency` is the network's, there and back."""

    slots: int = 4
    service: float = 0.02
    even: bool = False
    weight: int = 1
    latency: float = 0.0002
    reports: bool = False  # says its load with every answer, as ORCA does
    running: int = 0
    line: deque[Visit] = field(default_factory=deque)


@dataclass(eq=False)
class Visit:
    """One request, from the moment `gateway` sent it to `server`, which it knows as `candidate`."""

    came: float
    server: Server
    gateway: Gateway
    candidate: Candidate
    found: int  # in flight there, of this gateway's


class Gateway:
    """One balancer with what it alone knows of the servers: a worker of a gateway."""

    def __init__(self, servers: Sequence[Server], balancer: Balancer) -> None:
        self.balancer = balancer
        self.candidates = [Candidate(b"%d" % number, server.weight) for number, server in enumerate(servers)]
        self.servers = dict(zip(self.candidates, servers, strict=True))
        self.inflight = 0
        balancer.settle(self.candidates)


class World:
    """`at(time, change)` schedules a change of the servers; `visits` are (came, seconds, server) of what was answered.
    With several balancers each request comes to one of them by lot.
    """

    def __init__(self, servers: Sequence[Server], balancers: Sequence[Balancer], rate: float, seed: int) -> None:
        self.servers = servers
        self.gateways = [Gateway(servers, balancer) for balancer in balancers]
        self.rate = rate
        self.now = 0.0
        self.visits: list[tuple[float, float, Server]] = []
        self._rand = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def at(self, time: float, change: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._order), change))

    def run(self, seconds: float) -> None:
        """Lets requests come for so long; who is still waiting at the end counts with the time waited."""
        self.at(self._rand.expovariate(self.rate), self._arrive)
        events = self._events
        while events and events[0][0] < seconds:
            self.now, _, change = heapq.heappop(events)
            change()
        for server in self.servers:
            self.visits += [(visit.came, seconds - visit.came, server) for visit in server.line]

    def _arrive(self) -> None:
        self.at(self.now + self._rand.expovariate(self.rate), self._arrive)
        self.send()

    def send(self) -> None:
        """One request, now."""
        gateway = self._rand.choice(self.gateways)
        chosen = gateway.balancer.pick(ASKED, (), gateway.inflight, self._ns)
        assert chosen is not None
        server = gateway.servers[chosen]
        visit = Visit(self.now, server, gateway, chosen, chosen.inflight)
        chosen.inflight += 1
        gateway.inflight += 1
        self.at(self.now + server.latency / 2, lambda: self._enter(visit))

    def _enter(self, visit: Visit) -> None:
        visit.server.line.append(visit)
        self.admit(visit.server)

    def admit(self, server: Server) -> None:
        """Fills free slots; a server that has lost slots ends what runs."""
        while server.line and server.running < server.slots:
            visit = server.line.popleft()
            server.running += 1
            took = server.service if server.even else self._rand.expovariate(1.0 / server.service)
            self.at(self.now + took, lambda visit=visit: self._leave(visit))  # type: ignore[misc]

    def _leave(self, visit: Visit) -> None:
        server = visit.server
        server.running -= 1
        queued, running, slots = len(server.line), server.running, server.slots
        self.admit(server)
        self.at(self.now + server.latency / 2, lambda: self._answered(visit, queued, running, slots))

    def _answered(self, visit: Visit, queued: int, running: int, slots: int) -> None:
        candidate = visit.candidate
        candidate.inflight -= 1
        visit.gateway.inflight -= 1
        took = self.now - visit.came
        if candidate.gauge is not None:
            candidate.gauge.observe(candidate, Outcome.SUCCESS, int(took * NS), visit.found, self._ns)
        if visit.server.reports:
            candidate.load.hear(queued, running, slots, 0.0, candidate.inflight, self._ns)
        self.visits.append((visit.came, took, visit.server))

    @property
    def _ns(self) -> int:
        return NS + int(self.now * NS)

    def percentile(self, share: float, since: float = 0.0) -> float:
        """Seconds, of the requests that came after `since`."""
        took = sorted(took for came, took, _ in self.visits if came >= since)
        return took[min(int(share * len(took)), len(took) - 1)]

    def share(self, server: Server, since: float = 0.0) -> float:
        """The part of the requests that `server` got."""
        chosen = [each for came, _, each in self.visits if came >= since]
        return sum(each is server for each in chosen) / len(chosen)


class TwoChoices:
    """Power of two choices as it is in the books, to hold other policies against."""

    def __init__(self, rand: Rand) -> None:
        self.rand = rand

    def settle(self, members: Sequence[Candidate]) -> None:
        self._draw = Draw(members, self.rand)

    def pick(self, request: Request, tried: Sequence[Candidate], total: int, now: int) -> Candidate | None:
        first = self._draw.any()
        one, two = self._draw.candidates[first], self._draw.candidates[self._draw.other(first)]
        return two if two.inflight * one.share < one.inflight * two.share else one


def one_slow(make: Callable[[Rand], Balancer], count: int, load: float, factor: float, seed: int = 1) -> World:
    """`count` servers, of which the first takes `factor` times as long; the load is of the others' capacity."""
    servers = [Server(even=True) for _ in range(count)]
    rate = load * (count - 1) * servers[0].slots / servers[0].service
    servers[0].service *= factor
    world = World(servers, [make(random.Random(seed + 100).random)], rate, seed)
    world.run(15_000 / rate + 2.0)
    return world


def antagonists(
    make: Callable[[Rand], Balancer],
    *,
    gateways: int = 1,
    reports: bool = True,
    kind: str = "slots",
    burst: int = 0,
    seed: int = 1,
) -> World:
    """Four servers of which, in turns of 2 s, one loses three of its four slots, or takes four times as long; 90 % load
    of what is left, and `burst` requests at once at the beginning.
    """
    servers = [Server(reports=reports) for _ in range(4)]
    slots, service = servers[0].slots, servers[0].service
    balancers = [make(random.Random(seed + 100 + number).random) for number in range(gateways)]
    world = World(servers, balancers, 0.9 * 3.25 * slots / service, seed)

    def turn(number: int) -> None:
        for server in servers:
            server.slots, server.service = slots, service
        hit = servers[number % 4]
        if kind == "slots":
            hit.slots = 1
        else:
            hit.service = service * 4
        for server in servers:
            world.admit(server)
        world.at(world.now + 2.0, lambda: turn(number + 1))

    for _ in range(burst):
        world.at(0.5, world.send)
    turn(0)
    world.run(20.0)
    return world


def main() -> None:
    """Prints what the policies do, in about half a minute."""
    policies: dict[str, Callable[[Rand], Balancer]] = {"two choices": TwoChoices}
    policies |= {name: (lambda rand, name=name: Recipe(name, rand=rand)()) for name in BALANCERS if name not in HASHING}  # type: ignore[misc]
    rows = [("p99, ms", "8, all even", "one 10x slower", "its share", "antagonists", "2 gateways", "no reports")]
    for name, make in policies.items():
        even, slow = (one_slow(make, 8, 0.6, factor) for factor in (1, 10))
        row = [f"{world.percentile(0.99, 1) * 1e3:.0f}" for world in (even, slow)]
        row.append(f"{slow.share(slow.servers[0], 1):.2%}")
        for gateways, reports in ((1, True), (2, True), (2, False)):
            worlds = [antagonists(make, gateways=gateways, reports=reports, seed=seed) for seed in range(5)]
            row.append(f"{statistics.mean(world.percentile(0.99, 1) for world in worlds) * 1e3:.0f}")
        rows.append((name, *row))  # type: ignore[arg-type]
    print("\n".join(aligned(rows)))


if __name__ == "__main__":
    argparse.ArgumentParser(prog="python -m loadtests.queues", description=main.__doc__).parse_args()
    main()
