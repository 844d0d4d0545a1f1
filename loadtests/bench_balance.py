"""What the balancing policies do and cost (`make bench`; docs/balancing.md tells which one to take).

    python -m loadtests.bench_balance [--only picks,slow,antagonists] [--rounds 3] [--seconds 8]

* picks: shares over 10,000 picks of every policy against the weights (hashing: over as many keys), with all of 8
  backends and with 2 of them away; microseconds of `Pool.pick` with 8 and with 1,000 backends.
* slow: a real gateway, 20 real backends (slotserver: 4 slots x 40 ms) at 60 % load, and then one of them ten times
  slower. Weighted round-robin, which does not notice, stands beside it.
* antagonists: a real gateway and 4 backends (4 slots x 20 ms, exponential) that report their load. In turns of 2 s
  one of them loses three of its slots, as to a neighbour on its machine; the load is 90 % of what is left (the
  test of "Load is not what you should balance", NSDI 2024, in small). `least-request` looks at all four, `two-choices`
  is the same with `choices: 2`. `loadtests.queues` does it in simulated time.

Admission and breakers are off, so that what is compared is the policies and not what they are saved from.
Latency is open loop, from when a request was due. Every policy gets the same arrivals, in turn within each round.
Exit code 0; 1 if it cannot run, or with --check if a bar is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from demo.layout import GATEWAY
from loadtests import load
from loadtests.bars import Bar, over, report
from loadtests.load.report import aligned
from loadtests.peers.processes import NotUp, Process, free_ports
from loadtests.peers.slots import Slots

SHARE_OFF: Final = 0.01
COST_US: Final = {8: 2.0, 1000: 5.0}
SLOW: Final = 1.3  # p99 with a slow backend, to p99 without
TO_P2C, TO_ROUND_ROBIN = 1.0, 0.5
NOTICING: Final = ("peak-ewma", "least-request")
PATIENCE: Final = 2.0  # seconds a route waits

CONFIG = """\
version: 1
listen: 127.0.0.1:{port}
workers: 1
admin: {{listen: "127.0.0.1:{admin}"}}
http: {{max_connections: 20000, max_connections_per_address: 20000}}
pools:
{pools}
routes:
{routes}
"""
POOL = """\
  {name}:
    balance: {balance}
    backends: [{backends}]
    connections: {{max: 4096}}
    max_inflight: 100000
    admission: {{limit: off}}
    breaker: {{failures: 1000, error_rate: 0, silent_after: 0s}}
"""
BALANCE: Final = {"two-choices": "{type: least-request, choices: 2}"}
ROUTE = """\
  - {{name: {name}, match: {{path: "/{name}"}}, pool: {name}, timeout: {timeout}s}}
"""


# -- picks -----------------------------------------------------------------------------------------------------------


def picks() -> list[Bar]:
    """Shares and cost, measured by `picks.py` where it finds the installed gateway and not the sources."""
    script = Path(__file__).with_name("picks.py")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-P", str(script)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, env=environment, cwd=script.parent
    )
    if done.returncode:
        raise NotUp(f"the picks could not be timed: {done.stderr.strip()[-600:]}")
    result = json.loads(done.stdout)
    if not result["compiled"]:
        print("warning: this gateway is not compiled: run `make run` with a C compiler", file=sys.stderr)
    rows = [("policy", "share off by", "2 of 8 away", *(f"{size:,} backends, us" for size in COST_US))]
    for name, off in result["shares"].items():
        costs = (f"{result['cost'][name][str(size)]:.2f}" for size in COST_US)
        rows.append((name, *(f"{each:.2%}" for each in off), *costs))
    print("\n".join(aligned(rows)))
    worst = max(each for off in result["shares"].values() for each in off)
    return [
        Bar("share of any policy off by, all up or 2 of 8 away", SHARE_OFF * 100, worst * 100, unit=" points"),
        *(
            Bar(
                f"dearest pick of {size:,} backends",
                most,
                max(c[str(size)] for c in result["cost"].values()),
                unit=" us",
            )
            for size, most in COST_US.items()
        ),
    ]


# -- a real gateway ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def standing(
    policies: Sequence[str], count: int, settings: dict[str, float | bool]
) -> Iterator[tuple[int, list[Slots]]]:
    """A gateway with one pool (and route, by its name) a policy over the same backends."""
    with contextlib.ExitStack() as stack:
        workdir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        backends = [stack.enter_context(Slots(workdir, f"slots{number}", 0, **settings)) for number in range(count)]
        urls = ", ".join(f'{{url: "http://{backend.endpoint}"}}' for backend in backends)
        port, admin = free_ports(2)
        file = workdir / "gateway.yaml"
        pools = "".join(POOL.format(name=name, balance=BALANCE.get(name, name), backends=urls) for name in policies)
        routes = "".join(ROUTE.format(name=name, timeout=PATIENCE) for name in policies)
        file.write_text(CONFIG.format(port=port, admin=admin, pools=pools, routes=routes))
        gateway = Process("gateway", [str(GATEWAY), "run", "-c", str(file)], workdir)
        stack.callback(gateway.stop)
        gateway.wait_for_port(port)
        yield port, backends


async def offer(
    port: int, policy: str, rate: float, seconds: float, seed: int, shift: Callable[[], object] | None, turn: float
) -> load.Summary:
    """What clients see; `shift` is called at the beginning of every turn."""
    client = load.Client(
        policy, rate, requests=[load.Request("GET", f"/{policy}")], timeout=PATIENCE + 1, seed=seed, max_in_flight=8192
    )
    async with load.Load("127.0.0.1", port, [client], labels=["x-backend"], patience=PATIENCE + 2) as running:
        end = asyncio.get_running_loop().time() + seconds
        while (left := end - asyncio.get_running_loop().time()) > 0:
            if shift is not None:
                await asyncio.to_thread(shift)
            await asyncio.sleep(min(turn, left) if shift is not None else left)
    for warning in running.warnings():
        print(f"warning: {policy}: {warning}")
    summary = running.summary(policy)
    answered = summary.statuses.get(200, 0)
    if answered < 0.99 * summary.offered and policy in NOTICING:
        print(f"warning: {policy}: {summary.offered - answered} of {summary.offered} were not answered 200")
    return summary


def slow(rounds: int, seconds: float) -> list[Bar]:
    """One of 20 backends is ten times slower."""
    count, service, rate = 20, 0.04, 0.6 * 19 * 4 / 0.04
    policies = (*NOTICING, "prequal", "weighted-round-robin")
    ratios: dict[str, list[float]] = {name: [] for name in policies}
    rows = [("policy", "p99 ms", "with one 10x slower", "ratio", "its share")]
    before: dict[str, list[float]] = {name: [] for name in policies}
    after: dict[str, list[float]] = {name: [] for name in policies}
    share: dict[str, list[float]] = {name: [] for name in policies}
    with standing(policies, count, {"slots": 4, "service_us": service * 1e6}) as (port, backends):
        for number in range(rounds):
            for policy in policies:
                asyncio.run(offer(port, policy, rate, 1.0, 99, None, 0))  # warms up
                usual = asyncio.run(offer(port, policy, rate, seconds, number, None, 0))
                backends[0].set(service_us=service * 1e7)
                time.sleep(0.1)
                hard = asyncio.run(offer(port, policy, rate, seconds, number, None, 0))
                backends[0].set(service_us=service * 1e6)
                before[policy].append(usual.p99 * 1e3)
                after[policy].append(hard.p99 * 1e3)
                ratios[policy].append(hard.p99 / usual.p99)
                share[policy].append(hard.labels["x-backend"].get("slots0", 0) / hard.offered)
                while backends[0].stats().running:  # what queued there would be the next one's
                    time.sleep(0.1)
    for policy in policies:
        medians = [statistics.median(each[policy]) for each in (before, after, ratios, share)]
        rows.append((policy, f"{medians[0]:.1f}", f"{medians[1]:.1f}", f"{medians[2]:.2f}x", f"{medians[3]:.2%}"))
    print("\n".join(aligned(rows)))
    return [
        over(f"{name}: p99 with one of {count} ten times slower, to without", SLOW, ratios[name], "x")
        for name in NOTICING
    ]


def antagonists(rounds: int, seconds: float) -> list[Bar]:
    """Four backends, one of which has only one of its four slots at any time."""
    count, slots, service, turn = 4, 4, 0.02, 2.0
    rate = 0.9 * (count - 0.75) * slots / service
    policies = ("prequal", "two-choices", "least-request", "peak-ewma", "weighted-round-robin")
    found: dict[str, list[load.Summary]] = {name: [] for name in policies}
    settings: dict[str, float | bool] = {
        "slots": slots, "service_us": service * 1e6, "exponential": True, "report": True,
    }  # fmt: skip
    with standing(policies, count, settings) as (port, backends):
        for (
            policy
        ) in policies:  # a gateway that has just started stalls for a moment, and 90 % leave little to catch up
            asyncio.run(offer(port, policy, rate / 2, 1.5, 99, None, 0))
        for number in range(rounds):
            for policy in policies:
                found[policy].append(
                    asyncio.run(offer(port, policy, rate, seconds, number, Turns(backends, slots), turn))
                )
                for backend in backends:
                    backend.set(slots=slots)
                while any(backend.stats().running for backend in backends):
                    time.sleep(0.1)
    rows = [("policy", "p50 ms", "p99 ms", "200s")]
    for policy, each in found.items():
        p50, p99 = (statistics.median(getattr(one, q) for one in each) * 1e3 for q in ("p50", "p99"))
        good = sum(one.statuses.get(200, 0) for one in each) / sum(one.offered for one in each)
        rows.append((policy, f"{p50:.1f}", f"{p99:.1f}", f"{good:.2%}"))
    print("\n".join(aligned(rows)))

    def to(other: str) -> list[float]:
        return [a.p99 / b.p99 for a, b in zip(found["prequal"], found[other], strict=True)]

    return [
        over("prequal: p99 to power of two choices, antagonists, 90 % load", TO_P2C, to("two-choices"), "x"),
        over("prequal: p99 to weighted round-robin's", TO_ROUND_ROBIN, to("weighted-round-robin"), "x"),
    ]


class Turns:
    """Takes three in four slots of the next backend, and gives the last one its own back."""

    def __init__(self, backends: Sequence[Slots], slots: int) -> None:
        self._backends = backends
        self._slots = slots
        self._next = 0

    def __call__(self) -> None:
        count = len(self._backends)
        self._backends[(self._next - 1) % count].set(slots=self._slots)
        self._backends[self._next % count].set(slots=self._slots // 4)
        self._next += 1


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser("python -m loadtests.bench_balance", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="picks,slow,antagonists", help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of what needs a gateway (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each window (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="exit 1 if a bar is missed")
    options = parser.parse_args(argv)
    parts: dict[str, Callable[[], list[Bar]]] = {
        "picks": picks,
        "slow": lambda: slow(options.rounds, options.seconds),
        "antagonists": lambda: antagonists(options.rounds, options.seconds),
    }
    chosen = options.only.split(",")
    if not set(chosen) <= parts.keys():
        parser.error(f"--only takes {', '.join(parts)}")
    if not (1 <= options.rounds <= 50 and 1 <= options.seconds <= 60):
        parser.error("--rounds or --seconds out of range")
    bars: list[Bar] = []
    try:
        for name in chosen:
            print(f"\n{name}")
            bars += parts[name]()
    except (NotUp, OSError) as error:
        print(f"bench_balance: {error}", file=sys.stderr)
        return 1
    print()
    return report(bars, check=options.check)


if __name__ == "__main__":
    sys.exit(main())
