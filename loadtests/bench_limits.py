"""The limiter held to its word: what a fleet admits, what a decision costs, how often a lease asks (`make bench`).

    python -m loadtests.bench_limits [--seconds 30] [--check]

Two ways, both against one real Valkey:

* **workers**: four processes that run the gateway's own Limiter and store connection (installed and compiled), without
  HTTP, which would be the limit long before the limiter is. They hammer 1, 100 and 100,000 keys. For each key
  no more may be admitted than burst + rate x T, T from its first question to its last answer by the monotonic clock of
  the machine, and over all keys at least 99 % of what whole requests allow. Keys' rates are such that 99 % can be had.
* **gateways**: four whole gateways that share the store answer a route by themselves; `wrk` asks all four about
  one key. What they admitted is counted by themselves (`wrk` does not count what was under way when it ended), and T
  is from the first decision to the last that took a token, by the store's clock: the first is known to a millisecond
  (the bucket was not there, and then it was), the last is what the bucket itself says. T by the `wrk` that ran longest,
  as it was, leaves out that the four neither begin nor end together.

The store's clock is the time of day. Where that is set while a row is measured (`loadtests.clocks` looks at both), T is
what really passed and what it was set ahead, and the row says so.

CPU is user + system of the workers a decision; at 2,000/s (one worker, open loop, Poisson) what the driver alone costs
(its timer and its tasks) is taken off, and printed. Both, and a PING in place of each decision (what any question to
the store costs on this machine: a write, a wake-up, a read), are measured in turns, and the medians taken. The bar is
for the decision, whatever the PING costs. `leased`: one hot key, open loop, below and above what it allows.
"""

from __future__ import annotations

import argparse
import math
import re
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from demo.layout import GATEWAY
from loadtests.bars import Bar, report
from loadtests.clocks import Clocks
from loadtests.limit_worker import Task, Told
from loadtests.limiting import Team
from loadtests.load.report import aligned
from loadtests.peers.backing import Store
from loadtests.peers.processes import NotUp, Process, cpu_seconds, free_ports
from loadtests.peers.programs import find_program, find_valkey

WORKERS = 4
TURNS = 5  # of what is compared at 2,000/s
#: keys: rate and burst of each. What all may have together is less than the workers can ask.
HAMMERED = {1: (2_000.0, 5_000.0), 100: (50.0, 100.0), 100_000: (0.1, 3.0)}

RATE, BURST = 400.0, 1000.0  # of the key that the gateways share
BUCKET = b"http:everybody:{*}"  # which is this
DECISION = re.compile(r'^gateway_limit_decisions_total{.*result="(\w+)".*} (\d+)', re.MULTILINE)

CONFIG = """\
version: 1
listen: 127.0.0.1:%(port)d
workers: 1
admin: {listen: "127.0.0.1:%(admin)d"}
store: {url: "redis://127.0.0.1:%(store)d", key_prefix: http}
limits: {everybody: {key: global, rate: %(rate)d/s, burst: %(burst)d}}
pools: {p: {backends: [{url: "http://127.0.0.1:1"}]}}
routes: [{name: all, match: {path: "/*"}, respond: {body: ok}, limits: [everybody]}]
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One scenario. `share`: of what whole requests allow; `over`: keys that were given more than they may have."""

    name: str
    asked: int
    admitted: int
    allowed: float
    over: int
    calls: float
    cpu_us: float
    store_us: float
    p99_ms: float
    clocks: str = ""

    @property
    def share(self) -> float:
        return self.admitted / self.allowed if self.allowed else 0.0


def judge(name: str, found: Sequence[Told], rate: float, burst: float, store_s: float, clocks: Clocks) -> Row:
    """Adds up the workers, key by key."""
    keys: dict[str, tuple[float, float, float]] = {}
    for told in found:
        for key, (admitted, first, last) in told.keys.items():
            had = keys.get(key)
            keys[key] = (
                (admitted, first, last) if had is None else (had[0] + admitted, min(had[1], first), max(had[2], last))
            )
    most = {key: burst + rate * (last - first + clocks.ahead) for key, (_, first, last) in keys.items()}
    asked = sum(told.asked for told in found)
    return Row(
        name,
        asked,
        sum(told.admitted for told in found),
        sum(math.floor(each) for each in most.values()),
        sum(admitted > most[key] for key, (admitted, _, _) in keys.items()),
        sum(told.calls for told in found) / asked,
        sum(told.cpu_s for told in found) / asked * 1e6,
        store_s / asked * 1e6,
        max(told.waits_ms["p99"] for told in found),
        str(clocks),
    )


def play(name: str, store: Store, tasks: Sequence[Task]) -> Row:
    """One scenario on an empty store."""
    store.empty()
    team = Team(tasks)
    before = cpu_seconds(store.process.pid)
    with Clocks() as clocks:
        team.begin()
        found = team.end()
    return judge(name, found, tasks[0].rate, tasks[0].burst, cpu_seconds(store.process.pid) - before, clocks)


class First:
    """When the first decision was made, by the store's clock: after `before`, and not after `seen`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.before, self.seen = store.time(), 0.0
        self.ended = False
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self.ended and not self.seen:
            at = self._store.time()
            if (kept := self._store.get(BUCKET)) is not None:
                self.seen = struct.unpack("<dd", kept)[1] / 1e6
            else:
                self.before = at
            time.sleep(0.0005)

    def end(self) -> None:
        """Waits for the thread."""
        self.ended = True
        self._thread.join()


def decisions(admin: int) -> dict[str, int]:
    """What this gateway decided since it began, by result."""
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=5) as answer:
        found: dict[str, int] = {}
        for result, count in DECISION.findall(answer.read().decode()):
            found[result] = found.get(result, 0) + int(count)
        return found


def by_gateways(store: Store, workdir: Path, seconds: float) -> Row:
    """Four gateways, one key, `wrk` at each."""
    ports = free_ports(2 * WORKERS)
    running: list[Process] = []
    try:
        for i in range(WORKERS):
            path = workdir / f"gateway-{i}.yaml"
            text = CONFIG % {
                "port": ports[i], "admin": ports[WORKERS + i], "store": store.endpoint.port,
                "rate": RATE, "burst": BURST,
            }  # fmt: skip
            path.write_text(text)
            running.append(Process(f"gateway-{i}", [str(GATEWAY), "run", "-c", str(path)], workdir))
        for i, process in enumerate(running):
            process.wait_for_port(ports[i])
        time.sleep(1.0)
        store.empty()
        program = find_program("wrk")
        assert program is not None
        first = First(store)
        with Clocks() as clocks:
            hammers = [
                subprocess.Popen(
                    [program, "-t1", "-c4", f"-d{seconds:g}s", f"http://127.0.0.1:{ports[i]}/"],
                    stdout=subprocess.DEVNULL,
                )
                for i in range(WORKERS)
            ]
            for hammer in hammers:
                hammer.wait(timeout=seconds + 30)
        first.end()
        time.sleep(1.0)  # the gateways' figures are summed up a few times a second
        kept = store.get(BUCKET)
        if kept is None or not first.seen:
            raise NotUp("the gateways asked for nothing")
        last = struct.unpack("<dd", kept)[1] / 1e6
        counted = [decisions(port) for port in ports[WORKERS:]]
    finally:
        for process in running:
            process.stop()
    admitted = sum(each.get("allowed", 0) for each in counted)
    asked = admitted + sum(each.get("refused", 0) for each in counted)
    # The store's clock leaves out what it was set back by; the bucket got that time all the same.
    most = BURST + RATE * (last - first.before + clocks.back)
    return Row("4 gateways, 1 key", asked, admitted, most, int(admitted > most), 0, 0, 0, 0, str(clocks))


@dataclass(frozen=True, slots=True)
class Found:
    """The rows; then CPU in us at 2,000/s: the driver's own, and, without it, a decision's, of its EVALSHA sent and
    awaited by itself, and a PING's.
    """

    rows: list[Row]
    driver: float
    decision: float
    call: float
    ping: float


def measure(seconds: float) -> Found:
    """Everything, one after the other."""
    if not find_valkey() or not find_program("wrk"):
        raise NotUp("Valkey (or Redis) and wrk are needed: run `make bench-peers`")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="bench-limits-") as folder:
        store = Store(Path(folder))
        try:
            port = store.endpoint.port
            for keys, (rate, burst) in HAMMERED.items():
                task = Task(0, port, keys, rate, burst, seconds, workers=1)
                tasks = [replace(task, seed=i, gateway=f"g{i}") for i in range(WORKERS)]
                rows.append(play(f"exact, {keys:,} keys, {WORKERS} workers", store, tasks))
            rows.append(by_gateways(store, Path(folder), seconds))
            short = min(seconds, 10.0)
            for offered, rate in ((1_500.0, 50_000.0), (3_000.0, 6_000.0)):
                task = Task(0, port, 1, rate, rate / 2, short, "leased", offered)
                tasks = [replace(task, seed=i, gateway=f"g{i}") for i in range(WORKERS)]
                name = f"leased, 1 key, {offered * WORKERS:,.0f}/s of {rate:,.0f}/s"
                rows.append(play(name, store, tasks))
            wide = Task(1, port, 1_000, 1e6, 1e7, short)
            rows.append(play("exact, one worker, saturated", store, [wide]))
            slow = replace(wide, per_second=2_000.0, seconds=short / 2)
            turns = [[play("exact, one worker, 2,000/s", store, [each]) for each in (
                slow, replace(slow, idle=True), replace(slow, bare="EVALSHA"), replace(slow, bare="PING")
            )] for _ in range(TURNS)]  # fmt: skip
            decided, driver, called, pinged = (
                statistics.median(row.cpu_us for row in kind) for kind in zip(*turns, strict=True)
            )
            rows.append(replace(turns[0][0], cpu_us=decided))
        finally:
            store.stop()
    return Found(rows, driver, decided - driver, called - driver, pinged - driver)


def text(found: Found) -> str:
    """The table."""
    rows = found.rows
    lines = [("", "asked", "admitted", "of allowed", "over", "calls a request", "CPU us", "store us", "p99 ms")]
    for row in rows:
        share = f"{row.share:.2%}" if row.share <= 1.2 and "one worker" not in row.name else "-"
        lines.append((
            row.name, f"{row.asked:,}", f"{row.admitted:,}", share, str(row.over), f"{row.calls:.4f}",
            f"{row.cpu_us:.2f}", f"{row.store_us:.2f}", f"{row.p99_ms:.2f}",
        ))  # fmt: skip
    set_clocks = [f"{row.name}: {row.clocks}" for row in rows if "was set" in row.clocks]
    said = set_clocks or ["the store's time of day went as the monotonic clock in every row"]
    return "\n".join([*aligned(lines), *said, (
        f"at 2,000/s: driver {found.driver:.2f} us; without it a decision {found.decision:.2f} us, "
        f"its call by itself {found.call:.2f} us, a PING {found.ping:.2f} us"
    )])  # fmt: skip


def bars(rows: Sequence[Row], at_2000: float) -> list[Bar]:
    """What is promised."""
    exact = [row for row in rows if "keys, 4" in row.name or "gateways" in row.name]
    leased = [row for row in rows if row.name.startswith("leased")]
    saturated = next(row for row in rows if row.name.endswith("saturated"))
    found = [Bar("keys given more than burst + rate x T", 0, sum(row.over for row in rows))]
    found += [Bar(f"{row.name}: withheld of what is allowed", 1, 100 * (1 - row.share), unit=" %") for row in exact]
    found += [Bar(f"{row.name}: calls a request", 0.05, row.calls) for row in leased]
    found.append(Bar(f"{leased[-1].name}: withheld", 1, 100 * (1 - leased[-1].share), unit=" %"))
    found.append(Bar("CPU of an exact decision at saturation", 8, saturated.cpu_us, unit=" us"))
    found.append(Bar("CPU of an exact decision at 2,000/s, open loop", 30, at_2000, unit=" us"))
    return found


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser("python -m loadtests.bench_limits", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="of each hammering (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="exit 1 if a bar is missed")
    options = parser.parse_args(argv)
    if not 2 <= options.seconds <= 120:
        parser.error("--seconds must be from 2 to 120")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        found = measure(options.seconds)
    except (NotUp, OSError, subprocess.TimeoutExpired) as error:
        print(f"bench_limits: {error}", file=sys.stderr)
        return 1
    print(text(found))
    return report(bars(found.rows, found.decision), check=options.check)


if __name__ == "__main__":
    sys.exit(main())
