"""What the gateway adds to an answer's latency below saturation, beside nginx (`make bench`).

    python -m loadtests.bench_latency [--rounds 40] [--seconds 0.5] [--share 0.3]

First a closed loop finds what one worker of the gateway can do; then the same open-loop Poisson arrivals, at a share
of that, go to the origin itself, to nginx in front of it, to nginx with a token bucket in the store, and to the gateway
with every policy on (its limit decided by the store, and leased from it), in turn, each round in another order. Latency
counts from when a request was due (no coordinated omission). What is added is the difference to the origin in the same
round; the median of the rounds is held to the bars. The least of the rounds is printed beside it: what others do on the
machine only ever adds. Rounds are short,
because virtual machines stall for some milliseconds once or twice a second: over whole seconds that is about one
request in a hundred, and p99 would say how many stalls a round had; of short rounds the median has none.

Exit code 0; 1 if it cannot run, or with --check if a bar is missed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from loadtests import machine, openload, wrk
from loadtests.bars import Bar, over, report
from loadtests.load.report import aligned
from loadtests.openload import Open
from loadtests.peers.nginx import Nginx, NginxLua
from loadtests.peers.processes import NotUp
from loadtests.peers.programs import find_program
from loadtests.peers.sluicegate import LeasingSluicegate, Sluicegate
from loadtests.stand import HEADERS, PATH, Stand, standing
from loadtests.wrk import Failed, Scenario

DIRECT, OTHER, LIMITING, SUBJECT = "direct", "nginx", "nginx+lua+redis", "sluicegate"
LEASING = LeasingSluicegate.name
P50_MS = 0.3
P99_MS = 1.5
TO_NGINX = 1.5
NOISY_MS = 0.5  # p99 of the origin alone; 0.2 on a quiet machine


def bars(found: Mapping[str, Sequence[Open]], share: float) -> list[Bar]:
    """Held against the rounds, which are parallel over them all."""
    direct, nginx, ours = found[DIRECT], found[OTHER], found[SUBJECT]
    at = f"at {share:.0%} of saturation"
    return [
        over(f"p50 added over direct {at}", P50_MS, _added(ours, direct, 50), " ms"),
        over(f"p99 added over direct {at}", P99_MS, _added(ours, direct, 99), " ms"),
        over(f"p99 to nginx's, without policies, {at}", TO_NGINX, _to(ours, nginx), "x"),
        over(f"the same, with a limit that is leased, {at}", TO_NGINX, _to(found[LEASING], nginx), "x"),
        over(f"p99 to nginx's, with a token bucket in the store, {at}", TO_NGINX, _to(ours, found[LIMITING]), "x"),
    ]


def _to(ours: Sequence[Open], theirs: Sequence[Open]) -> list[float]:
    return [a.p99 / b.p99 for a, b in zip(ours, theirs, strict=True)]


def _added(ours: Sequence[Open], direct: Sequence[Open], q: int) -> list[float]:
    return [a.p50 - b.p50 if q == 50 else a.p99 - b.p99 for a, b in zip(ours, direct, strict=True)]


def text(found: Mapping[str, Sequence[Open]]) -> str:
    """One row for each: medians of the rounds, and the least in brackets."""
    rows = [("", "p50 ms", "(least)", "p99 ms", "(least)", "worst ms", "generator's lag p99 ms")]
    for name, each in found.items():
        rows.append(
            (
                name,
                f"{statistics.median(one.p50 for one in each):.3f}",
                f"{min(one.p50 for one in each):.3f}",
                f"{statistics.median(one.p99 for one in each):.2f}",
                f"{min(one.p99 for one in each):.2f}",
                f"{max(one.worst for one in each):.1f}",
                f"{statistics.median(one.lag_p99 for one in each):.2f}",
            )
        )
    return "\n".join(aligned(rows))


def saturation(stand: Stand, port: int) -> float:
    """Requests a second in a closed loop, the median of five short runs: as the rounds after find it, too.

    (The best of them can be a second in which the machine was 1.6 times as fast as in most.)
    """
    scenario = Scenario("GET", "GET", PATH)
    script = scenario.script(HEADERS, stand.workdir / "saturate.lua")
    runs = [_closed(port, scenario, script) for _ in range(5)]
    return statistics.median(one.requests / one.seconds for one in runs)


def _closed(port: int, scenario: Scenario, script: Path) -> wrk.Run:
    return wrk.run(port, scenario.path, script, connections=64, seconds=1)


def measure(rounds: int, seconds: float, share: float) -> tuple[float, dict[str, list[Open]]]:
    """The rate, and the rounds of each."""
    with standing(Nginx(), NginxLua(), Sluicegate(), LeasingSluicegate()) as stand:
        ports = {DIRECT: stand.origin.endpoint.port, **stand.ports}
        rate = saturation(stand, ports[SUBJECT]) * share
        found: dict[str, list[Open]] = {name: [] for name in (DIRECT, OTHER, LIMITING, SUBJECT, LEASING)}
        names = list(found)
        for turn in range(rounds):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                found[name].append(openload.run(ports[name], rate=rate, seconds=seconds, seed=turn + 1))
    return rate, found


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser("python -m loadtests.bench_latency", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=40, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each round (default: %(default)s)")
    parser.add_argument("--share", type=float, default=0.3, help="of saturation (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="exit 1 if a bar is missed")
    options = parser.parse_args(argv)
    if not (1 <= options.rounds <= 200 and 0.3 <= options.seconds <= 60 and 0.01 <= options.share <= 0.9):
        parser.error("--rounds, --seconds or --share out of range")
    if not (find_program("wrk") and find_program("openload")):
        print("bench_latency: wrk and openload are needed: run `make bench-peers`", file=sys.stderr)
        return 1
    try:
        rate, found = measure(options.rounds, options.seconds, options.share)
    except (NotUp, Failed, OSError) as error:
        print(f"bench_latency: {error}", file=sys.stderr)
        return 1
    print(f"open loop, {rate:.0f} requests/s ({options.share:.0%} of the gateway's own saturation), one worker")
    print(text(found))
    own = statistics.median(one.p99 for one in found[DIRECT])
    if own > NOISY_MS:
        print(f"warning: the origin's own p99 is {own:.1f} ms: the machine is too busy to judge milliseconds on it")
    machine.warn()
    return report(bars(found, options.share), check=options.check)


if __name__ == "__main__":
    sys.exit(main())
