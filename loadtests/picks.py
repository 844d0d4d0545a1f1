"""Shares and cost of every policy's picks, on the installed gateway; prints JSON. Run by `bench_balance`.

Run as a file with `python -P`, so that `gateway` is the installed, compiled one and not the sources beside it.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from gateway.balance import policy as policy_module
from gateway.balance.hashing import Key
from gateway.balance.policy import Candidate
from gateway.balance.registry import BALANCERS, Recipe, Settings
from gateway.breakers.gate import BreakerSettings
from gateway.http.dial import Address
from gateway.http.upstream import ClientLimits
from gateway.request import Outcome, Request
from gateway.upstreams.backend import Backend
from gateway.upstreams.pool import Pool

PICKS: Final = 10_000
LOOPS: Final = 20_000
REPEATS: Final = 7
SIZES: Final = (8, 1000)
KEY: Final = Settings(key=Key("header", b"x-user"))
ASKED: Final = [Request(b"GET", b"/", b"/", {b"x-user": b"user-%d" % number}) for number in range(PICKS)]
NOW: Final = 1_000_000_000_000


def shares(name: str) -> tuple[float, float]:
    """How far the worst share is from its weight, with all of 8 candidates and with 2 of them away."""
    members = [Candidate(b"10.0.0.%d:8501" % number, 1 + number % 4) for number in range(8)]
    balancer = Recipe(name, KEY, random.Random(1).random)()
    found = []
    for away in ([], members[3:5]):
        for member in members:
            member.share = 0.0 if member in away else float(member.weight)
        balancer.settle(members)
        counts = Counter(balancer.pick(request, (), 0, NOW) for request in ASKED)
        total = sum(member.share for member in members)
        found.append(max(abs(counts[member] / PICKS - member.share / total) for member in members))
    return found[0], found[1]


class Picking:
    """A pool with something in flight and latencies to go by."""

    def __init__(self, name: str, size: int) -> None:
        rand = random.Random(1)
        self.nobody: list[Backend] = []
        backends = tuple(
            Backend(f"p/{n}", f"b{n}", Address("127.0.0.1", 80), 1 + n % 3, BreakerSettings(), ClientLimits())
            for n in range(size)
        )
        self.pool = Pool("p", backends, Recipe(name, KEY), 1_000_000)
        for backend in backends:
            backend.inflight = rand.randint(0, 4)
            self.pool.inflight += backend.inflight
            for _ in range(3):
                backend.observe(Outcome.SUCCESS, rand.randint(10_000_000, 40_000_000), NOW)

    def pick(self, number: int) -> None:
        self.pool.pick(ASKED[number & 1023], self.nobody, NOW + number * 1000)


def _nothing(number: int) -> None:
    ASKED[number & 1023]


def _least(work: Callable[[int], None]) -> float:
    """Microseconds a call."""
    best = float("inf")
    for _ in range(REPEATS):
        began = time.perf_counter()
        for number in range(LOOPS):
            work(number)
        best = min(best, (time.perf_counter() - began) / LOOPS * 1e6)
    return best


def main() -> None:
    """Prints what was found."""
    idle = _least(_nothing)
    result = {
        "compiled": (policy_module.__file__ or "").endswith(".so"),
        "shares": {name: shares(name) for name in sorted(BALANCERS)},
        "cost": {
            name: {str(size): _least(Picking(name, size).pick) - idle for size in SIZES} for name in sorted(BALANCERS)
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
