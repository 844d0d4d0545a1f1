"""Overload: a backend of 4 slots x 20 ms that nobody is told of, and up to ten times what it can answer.

    python -m loadtests.bench_overload [--seconds 8] [--only load,steps,priority,fair,peers] [--check]

The backend (`peers/slots`) serves 4 requests at a time for 20 ms each; what it can do, offered more than enough without
anything in between, is measured first and is the capacity that everything is held to. Clients are an open loop of
Poisson arrivals and give up after 500 ms. Every load starts with a gateway that has just started and knows nothing;
what is offered in the first two seconds counts for nothing but the bar that below capacity nothing is ever refused.

Latencies count from when a request was due; those of refusals from when it was sent, since a busy generator's own delay
is as long as they are.

* load: 0.75, 2, 5 and 10 times the capacity, with one worker and with two
* steps: at five times the capacity, slots and service time halve and double; held from two seconds after each
* priority: half the capacity of `critical` against ten times the capacity of `batch`
* fair: four tenants that offer 0.3 to 8 times the capacity; Jain's index of what they get
* peers: the same loads through nginx, HAProxy (told the capacity) and Envoy's adaptive concurrency

Exit code 0; 1 if it cannot run, or with --check if a bar is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import math
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests import machine
from loadtests.bars import Bar, report
from loadtests.load import Client, Load, Request
from loadtests.load.report import aligned
from loadtests.load.samples import Sample
from loadtests.peers.base import Endpoint, Peer
from loadtests.peers.nginx import Nginx
from loadtests.peers.overload import AdaptiveEnvoy, CappedHaproxy, OverloadedGateway, tenant_key
from loadtests.peers.processes import NotUp
from loadtests.peers.slots import Slots

SLOTS, SERVICE_MS = 4, 20.0
NOMINAL = SLOTS * 1000 / SERVICE_MS
PATIENCE = 0.5
SETTLED = 2.0  # seconds
FACTORS = (0.75, 2.0, 5.0, 10.0)
STEPS: tuple[tuple[str, int, float], ...] = (
    ("slots halve", 2, 20.0),
    ("slots double", 4, 20.0),
    ("slots double", 8, 20.0),
    ("slots halve", 4, 20.0),
    ("service doubles", 4, 40.0),
    ("service halves", 4, 20.0),
    ("service halves", 4, 10.0),
    ("service doubles", 4, 20.0),
)
TENANTS = {"ann": 0.3, "bob": 1.0, "cy": 3.0, "dee": 8.0}
PARTS = ("load", "steps", "priority", "fair", "peers")


@dataclass(frozen=True, slots=True)
class Seen:
    """What one client saw from `SETTLED` on: per second, milliseconds and shares."""

    offered: float
    goodput: float
    p50: float
    p99: float
    refused: float
    refused_p50: float
    refused_p99: float
    failed: float  # neither answered nor refused: timeouts, broken connections
    refused_ever: int  # also before it had settled

    @classmethod
    def of(cls, samples: Sequence[Sample], since: float, until: float) -> Seen:
        window = [each for each in samples if since <= each.due < until]
        good = sorted(each.latency for each in window if each.status == 200)
        refused = sorted(each.latency - each.lag for each in window if each.status == 503)
        offered = max(1, len(window))
        return cls(
            offered=len(window) / (until - since),
            goodput=len(good) / (until - since),
            p50=_ms(good, 50),
            p99=_ms(good, 99),
            refused=len(refused) / offered,
            refused_p50=_ms(refused, 50),
            refused_p99=_ms(refused, 99),
            failed=1 - (len(good) + len(refused)) / offered,
            refused_ever=sum(each.status != 200 for each in samples if each.due < until),
        )


def _ms(latencies: Sequence[float], q: int) -> float:
    return latencies[max(0, math.ceil(len(latencies) * q / 100) - 1)] * 1e3 if latencies else math.nan


def jain(shares: Sequence[float]) -> float:
    """1 if all get the same, 1/n if one gets everything (R. Jain et al. 1984)."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 0.0


# -- the stand --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def backend() -> Iterator[Slots]:
    with (
        tempfile.TemporaryDirectory(prefix="overload-") as folder,
        Slots(Path(folder), slots=SLOTS, service_us=SERVICE_MS * 1e3) as slots,
    ):
        yield slots


@contextlib.contextmanager
def before(peer: Peer, origin: Endpoint) -> Iterator[int]:
    """The peer in front of the backend; its port."""
    reason = peer.available()
    if reason is not None:
        raise NotUp(f"{peer.name}: {reason}")
    with tempfile.TemporaryDirectory(prefix="overload-") as folder:
        try:
            port = peer.start(origin, origin, Path(folder))
            _answers(port)
            yield port
        finally:
            peer.stop()


def _answers(port: int, within: float = 20.0) -> None:
    """Returns once a request was answered: a listening port may still be without its workers."""
    end = time.monotonic() + within
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/")
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException) as error:
            if time.monotonic() > end:
                raise NotUp(f"nothing answers on port {port}: {error!r}") from error
        finally:
            connection.close()
        time.sleep(0.05)


def client(name: str, rate: float, path: str = "/v1/models/x:predict", key: str | None = None, seed: int = 1) -> Client:
    headers = {"x-api-key": key} if key is not None else {}
    body = b'{"instances": [[1.0, 2.0, 3.0, 4.0]]}'
    asked = [Request("POST", path, body)]
    return Client(name, rate=rate, requests=asked, headers=headers, timeout=PATIENCE, max_in_flight=8192, seed=seed)


async def offer(port: int, clients: Sequence[Client], seconds: float) -> Load:
    load = Load("127.0.0.1", port, clients, labels=(), max_seconds=seconds + 5, patience=PATIENCE)
    async with load:
        await asyncio.sleep(seconds)
    for warning in load.warnings():
        print(f"  warning: {warning}")
    return load


def run(port: int, clients: Sequence[Client], seconds: float) -> dict[str, Seen]:
    with _runner() as runner:
        load = runner.run(offer(port, clients, seconds + SETTLED))
    end = SETTLED + seconds
    return {each.name: Seen.of(list(load.samples(each.name)), SETTLED, end) for each in clients}


def _runner() -> asyncio.Runner:
    try:
        import uvloop
    except ImportError:
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


def capacity(slots: Slots, seconds: float = 3.0) -> float:
    """Answers per second of a backend that never lacks a request, with nothing in between."""
    every = Client("closed", connections=16, requests=[Request("POST", "/", b"{}")], timeout=5.0)

    async def saturate() -> float:
        async with Load("127.0.0.1", slots.endpoint.port, [every], labels=(), patience=2.0) as load:
            await asyncio.sleep(0.5 + seconds)
        return load.summary("closed", since=0.5, until=0.5 + seconds).answered_rate

    with _runner() as runner:
        return runner.run(saturate())


# -- the parts --------------------------------------------------------------------------------------------------

HEAD = (
    "",
    "offered x",
    "goodput/s",
    "of capacity",
    "p50 ms",
    "p99 ms",
    "refused",
    "its p50 ms",
    "its p99 ms",
    "failed",
)


def row(name: str, factor: float, seen: Seen, most: float) -> tuple[str, ...]:
    return (
        name,
        f"{factor:g}",
        f"{seen.goodput:.1f}",
        f"{seen.goodput / min(most, seen.offered):.1%}",
        f"{seen.p50:.0f}",
        f"{seen.p99:.0f}",
        f"{seen.refused:.1%}",
        f"{seen.refused_p50:.1f}",
        f"{seen.refused_p99:.1f}",
        f"{seen.failed:.1%}",
    )


def bar_load(title: str, factor: float, seen: Seen, most: float) -> list[Bar]:
    at = f"{title} at {factor:g}x"
    if factor < 1:
        return [Bar(f"{at}: answers other than 200, from the first request on", 0, seen.refused_ever)]
    return [
        Bar(f"{at}: goodput lacking to capacity", 2, 100 * (1 - seen.goodput / most), unit=" %"),
        Bar(f"{at}: p99 of served", 3 * SERVICE_MS, seen.p99, unit=" ms"),
        Bar(f"{at}: p99 of refusals", 5, seen.refused_p99, unit=" ms"),
    ]


def part_load(seconds: float, most: float) -> list[Bar]:
    bars: list[Bar] = []
    rows: list[tuple[str, ...]] = [HEAD]
    for workers in (1, 2):
        title = "1 worker" if workers == 1 else f"{workers} workers"
        for factor in FACTORS:
            with backend() as slots, before(OverloadedGateway(workers), slots.endpoint) as port:
                seen = run(port, [client("all", factor * most)], seconds)["all"]
            rows.append(row(title, factor, seen, most))
            bars += bar_load(title, factor, seen, most)
    print("\n".join(aligned(rows)))
    return bars


def part_peers(seconds: float, most: float) -> list[Bar]:
    rows: list[tuple[str, ...]] = [HEAD]
    for kind in (Nginx, CappedHaproxy, AdaptiveEnvoy, OverloadedGateway):
        for factor in FACTORS:
            with backend() as slots, before(kind(), slots.endpoint) as port:
                seen = run(port, [client("all", factor * most)], seconds)["all"]
            rows.append(row(kind.name, factor, seen, most))
    print("\n".join(aligned(rows)))
    return []


def part_steps(seconds: float, most: float) -> list[Bar]:
    """One load over all steps; each is held from `SETTLED` after it."""
    each = SETTLED + max(3.0, seconds / 2)

    async def go(slots: Slots, port: int) -> tuple[Load, list[float]]:
        begins = []
        async with Load("127.0.0.1", port, [client("all", 5 * most)], labels=(), patience=PATIENCE) as load:
            await asyncio.sleep(each)
            for _, number, service in STEPS:
                await asyncio.to_thread(slots.set, slots=number, service_us=service * 1e3)
                begins.append(load.now)
                await asyncio.sleep(each)
        return load, begins

    with backend() as slots, before(OverloadedGateway(), slots.endpoint) as port, _runner() as runner:
        load, begins = runner.run(go(slots, port))
    samples = list(load.samples("all"))
    rows: list[tuple[str, ...]] = [("step", *HEAD[2:])]
    bars: list[Bar] = []
    for (name, number, service), begin in zip(STEPS, begins, strict=True):
        seen = Seen.of(samples, begin + SETTLED, begin + each)
        able = number * 1000 / (service + SLOTS * 1000 / most - SERVICE_MS)  # its timers' own delay stays the same
        step = f"{name}: {number} x {service:g} ms"
        rows.append((step, *row("", 0, seen, able)[2:]))
        bars.append(Bar(f"{step}: goodput lacking", 2, 100 * (1 - seen.goodput / able), unit=" %"))
        bars.append(Bar(f"{step}: p99 of served", 3 * service, seen.p99, unit=" ms"))
    print("\n".join(aligned(rows)))
    return bars


def part_priority(seconds: float, most: float) -> list[Bar]:
    clients = [client("critical", 0.5 * most, "/critical", seed=1), client("batch", 10 * most, "/batch", seed=2)]
    with backend() as slots, before(OverloadedGateway(), slots.endpoint) as port:
        seen = run(port, clients, seconds)
    print("\n".join(aligned([HEAD, *(row(name, one.offered / most, one, most) for name, one in seen.items())])))
    critical, both = seen["critical"], seen["critical"].goodput + seen["batch"].goodput
    return [
        Bar(
            "critical beside 10x of batch: not answered", 1, 100 * (1 - critical.goodput / critical.offered), unit=" %"
        ),
        Bar("critical beside 10x of batch: p99 of served", 3 * SERVICE_MS, critical.p99, unit=" ms"),
        Bar("critical and batch together: goodput lacking", 2, 100 * (1 - both / most), unit=" %"),
    ]


def part_fair(seconds: float, most: float) -> list[Bar]:
    bars: list[Bar] = []
    for workers in (1, 2):
        clients = [
            client(name, factor * most, key=tenant_key(name), seed=number)
            for number, (name, factor) in enumerate(TENANTS.items())
        ]
        gateway = OverloadedGateway(workers, tuple(TENANTS))
        with backend() as slots, before(gateway, slots.endpoint) as port:
            seen = run(port, clients, seconds)
        rows = [row(name, TENANTS[name], one, most / len(TENANTS)) for name, one in seen.items()]
        print("\n".join(aligned([HEAD, *rows])))
        index = jain([one.goodput for one in seen.values()])
        together = sum(one.goodput for one in seen.values())
        at = f"{workers} worker{'s' * (workers > 1)}, tenants"
        bars.append(Bar(f"{at}: Jain's index lacking to 1", 0.05, 1 - index))
        bars.append(Bar(f"{at}: goodput of all lacking", 2, 100 * (1 - together / most), unit=" %"))
    return bars


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser("python -m loadtests.bench_overload", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=8.0, help="of each load (default: %(default)s)")
    parser.add_argument("--only", default=",".join(PARTS), help="(default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="exit 1 if a bar is missed")
    options = parser.parse_args(argv)
    wanted = options.only.split(",")
    if not 1 <= options.seconds <= 120 or not set(wanted) <= set(PARTS):
        parser.error("--seconds or --only out of range")
    bars: list[Bar] = []
    try:
        with backend() as slots:
            most = capacity(slots)
        print(f"capacity of {SLOTS} slots x {SERVICE_MS:g} ms: {most:.1f}/s ({NOMINAL:g} by the numbers)")
        for name, part in (
            ("load", part_load), ("steps", part_steps), ("priority", part_priority), ("fair", part_fair),
            ("peers", part_peers),
        ):  # fmt: skip
            if name in wanted:
                print(f"\n{name}")
                bars += part(options.seconds, most)
    except (NotUp, OSError) as error:
        print(f"bench_overload: {error}", file=sys.stderr)
        return 1
    print()
    machine.warn()
    return report(bars, check=options.check)


if __name__ == "__main__":
    sys.exit(main())
