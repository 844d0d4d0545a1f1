"""CPU per request with two workers beside one: what sharing a machine costs (`make bench`).

    python -m loadtests.bench_workers [--rounds 5] [--seconds 2]

Two gateways with every policy on, one of them with two workers, under the same closed loop in turn; CPU is of all
workers, divided by the requests answered. On two cores the second worker also competes with the load, the origin and
the store, so the figure is rather too high than too low.

Exit code 0; 1 if it cannot run, or with --check if the bar is missed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from typing import ClassVar

from loadtests.bars import over, report
from loadtests.measure import Measurement, take, take_quiet
from loadtests.peers.processes import NotUp
from loadtests.peers.programs import find_program
from loadtests.peers.sluicegate import Sluicegate
from loadtests.stand import HEADERS, PATH, standing
from loadtests.wrk import Failed, Scenario

BAR = 1.1
SCENARIO = Scenario("GET", "GET", PATH)


class TwoWorkers(Sluicegate):
    """The same with two."""

    name: ClassVar[str] = "two workers"
    workers: ClassVar[int] = 2


def measure(rounds: int, seconds: float, connections: int) -> tuple[list[Measurement], list[Measurement]]:
    """The rounds with one worker and with two."""
    one, two = Sluicegate(), TwoWorkers()
    found: dict[str, list[Measurement]] = {one.name: [], two.name: []}
    with standing(one, two) as stand:
        script = SCENARIO.script(HEADERS, stand.workdir / "get.lua")
        backing = (stand.store, stand.origin)
        for turn in range(rounds + 1):
            for peer in (one, two) if turn % 2 else (two, one):
                how = take_quiet if turn else take  # the first turn warms up and is not kept
                done = how(peer, stand.ports[peer.name], SCENARIO, script, backing, connections, seconds)
                if turn:
                    found[peer.name].append(done)
    return found[one.name], found[two.name]


def line(name: str, rounds: list[Measurement]) -> str:
    """Medians."""
    cpu = statistics.median(each.proxy_us for each in rounds)
    rate = statistics.median(each.requests_per_second for each in rounds)
    asked = statistics.median(each.store_commands for each in rounds)
    return f"{name}: {cpu:.1f} us CPU a request, {rate:.0f} requests/s, {asked:.2f} commands of the store a request"


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser("python -m loadtests.bench_workers", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each round (default: %(default)s)")
    parser.add_argument("--connections", type=int, default=64, help="keep-alive clients (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="exit 1 if the bar is missed")
    options = parser.parse_args(argv)
    if not (1 <= options.rounds <= 50 and 1 <= options.seconds <= 60 and 2 <= options.connections <= 1000):
        parser.error("--rounds, --seconds or --connections out of range")
    if not find_program("wrk"):
        print("bench_workers: wrk is needed: run `make bench-peers`", file=sys.stderr)
        return 1
    try:
        one, two = measure(options.rounds, options.seconds, options.connections)
    except (NotUp, Failed, OSError) as error:
        print(f"bench_workers: {error}", file=sys.stderr)
        return 1
    print(line("one worker", one))
    print(line("two workers", two))
    ratios = [b.proxy_us / a.proxy_us for a, b in zip(one, two, strict=True)]
    return report([over("CPU a request with two workers to one", BAR, ratios, "x")], check=options.check)


if __name__ == "__main__":
    sys.exit(main())
