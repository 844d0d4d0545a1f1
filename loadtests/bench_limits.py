"""The limiter held to its word: what a fleet admits, what a decision costs, how often a lease asks (`make bench`).

    python -m loadtests.bench_limits [--seconds 30] [--check]

Two ways, both against one real Valkey:

* **workers**: four processes that run the gateway's own Limiter and store connection (installed and compiled), without
  HTTP, which would be the limit long before the limiter is. They hammer 1, 100 and 100,000 keys. For each key
  no more may be admitted than burst + rate x T, T from its first question to its last answer by the clock of the
  machine, and over all keys at least 99 % of what whole requests allow. Keys' rates are such that 99 % is to be had.
* **gateways**: four whole gateways that share the store answer a route by themselves; `wrk` asks all four about
  one key.

CPU is user + system of the workers a decision; at 2,000/s (one worker, open loop, Poisson) what the driver alone costs
(its timer and its tasks) is taken off, and printed. `leased`: one hot key, open loop, below and above what it allows.
"""

from __future__ import annotations

import argparse
import math
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from demo.layout import GATEWAY
from loadtests.bars import Bar, report
from loadtests.limit_worker import Task, Told
from loadtests.limiting import Team
from loadtests.load.report import aligned
from loadtests.peers.backing import Store
from loadtests.peers.processes import NotUp, Process, cpu_seconds, free_ports
from loadtests.peers.programs import find_program, find_valkey

WORKERS = 4
#: keys: rate and burst of each. What all may have together is less than the workers can ask.
HAMMERED = {1: (2_000.0, 5_000.0), 100: (50.0, 100.0), 100_000: (0.1, 3.0)}

CONFIG = """\
version: 1
listen: 127.0.0.1:%(port)d
workers: 1
admin: {listen: "127.0.0.1:%(admin)d"}
store: {url: "redis://127.0.0.1:%(store)d", key_prefix: http}
limits: {everybody: {key: global, rate: 400/s, burst: 1000}}
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

    @property
    def share(self) -> float:
        return self.admitted / self.allowed if self.allowed else 0.0


def judge(name: str, found: Sequence[Told], rate: float, burst: float, store_s: float) -> Row:
    """Adds up the workers, key by key."""
    keys: dict[str, tuple[float, float, float]] = {}
    for told in found:
        for key, (admitted, first, last) in told.keys.items():
            had = keys.get(key)
            keys[key] = (
                (admitted, first, last) if had is None else (had[0] + admitted, min(had[1], first), max(had[2], last))
            )
    most = {key: burst + rate * (last - first) for key, (_, first, last) in keys.items()}
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
    )


def play(name: str, store: Store, tasks: Sequence[Task]) -> Row:
    """One scenario on an empty store."""
    store.empty()
    team = Team(tasks)
    before = cpu_seconds(store.process.pid)
    team.begin()
    found = team.end()
    return judge(name, found, tasks[0].rate, tasks[0].burst, cpu_seconds(store.process.pid) - before)


def by_gateways(store: Store, workdir: Path, seconds: float) -> Row:
    """Four gateways, one key, `wrk` at each."""
    ports = free_ports(2 * WORKERS)
    running: list[Process] = []
    try:
        for i in range(WORKERS):
            path = workdir / f"gateway-{i}.yaml"
            path.write_text(CONFIG % {"port": ports[i], "admin": ports[WORKERS + i], "store": store.endpoint.port})
            running.append(Process(f"gateway-{i}", [str(GATEWAY), "run", "-c", str(path)], workdir))
        for i, process in enumerate(running):
            process.wait_for_port(ports[i])
        time.sleep(1.0)
        store.empty()
        program = find_program("wrk")
        assert program is not None
        began = store.time()
        hammers = [
            subprocess.Popen(
                [program, "-t1", "-c4", f"-d{seconds:g}s", f"http://127.0.0.1:{ports[i]}/"],
                stdout=subprocess.PIPE,
                text=True,
            )
            for i in range(WORKERS)
        ]
        outputs = [hammer.communicate(timeout=seconds + 30)[0] for hammer in hammers]
        took = store.time() - began
    finally:
        for process in running:
            process.stop()
    asked = sum(_number(out, "requests in") for out in outputs)
    refused = sum(_number(out, "Non-2xx or 3xx responses:", after=True) for out in outputs)
    # Until the last of them ended; without the starting of `wrk` itself, and not more than passed by the store's clock.
    hammered = min(took, max(_seconds(out) for out in outputs))
    admitted = asked - refused
    return Row(
        "4 gateways, 1 key", asked, admitted, 1000 + 400 * hammered, int(admitted > 1000 + 400 * took), 0, 0, 0, 0
    )


def _seconds(text: str) -> float:
    found = re.search(r"requests in ([0-9.]+)s", text)
    return float(found[1]) if found else 0.0


def _number(text: str, label: str, *, after: bool = False) -> int:
    for line in text.splitlines():
        if label in line:
            return int(line.split(label)[1] if after else line.split(label)[0])
    return 0


def measure(seconds: float) -> tuple[list[Row], float, float]:
    """The rows; then the driver's own cost at 2,000/s, and what a decision costs there without it."""
    if not find_valkey() or not find_program("wrk"):
        raise NotUp("Valkey (or Redis) and wrk are needed: run `make bench-peers`")
    rows = []
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
            slow = replace(wide, per_second=2_000.0)
            rows.append(play("exact, one worker, 2,000/s", store, [slow]))
            driver = play("driver alone, 2,000/s", store, [replace(slow, idle=True)]).cpu_us
        finally:
            store.stop()
    return rows, driver, rows[-1].cpu_us - driver


def text(rows: Sequence[Row], driver: float) -> str:
    """The table."""
    lines = [("", "asked", "admitted", "of allowed", "over", "calls a request", "CPU us", "store us", "p99 ms")]
    for row in rows:
        share = f"{row.share:.2%}" if row.share <= 1.2 and "one worker" not in row.name else "-"
        lines.append((
            row.name, f"{row.asked:,}", f"{row.admitted:,}", share, str(row.over), f"{row.calls:.4f}",
            f"{row.cpu_us:.2f}", f"{row.store_us:.2f}", f"{row.p99_ms:.2f}",
        ))  # fmt: skip
    return "\n".join([*aligned(lines), f"of the CPU at 2,000/s the driver's own: {driver:.2f} us"])


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
        rows, driver, at_2000 = measure(options.seconds)
    except (NotUp, OSError, subprocess.TimeoutExpired) as error:
        print(f"bench_limits: {error}", file=sys.stderr)
        return 1
    print(text(rows, driver))
    return report(bars(rows, at_2000), check=options.check)


if __name__ == "__main__":
    sys.exit(main())
