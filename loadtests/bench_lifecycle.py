"""What clients notice of a model's life: loading beside them, unloading, swaps, and the first request.

    python -m loadtests.bench_lifecycle [--check] [--only load,memory,swaps,first] [--megabytes 200] [--rounds 5]

Four measurements, each with its own go_infer and the same kind of model, whose answers name their version:

load    requests for version 1, open loop (loadtests/due.py), while version 2 of a model of --megabytes appears, is
        loaded and warmed, and goes again. Rounds alternate between that and as long a stretch of nothing; p99 to p99 of
        each round, at shares of what the server can answer. Then a load at full load, which --load_patience bounds.
memory  resident memory after the first load and after each of 20 unloads and loads.
swaps   1,000 label moves, rollbacks and restores (each a load and an unload) while clients ask by label and by nothing.
        An answer is mis-versioned if that version could not be meant at any time between the request and its answer.
first   the first prediction after /readyz says ready, on a connection that is open, against p50 of 300 that follow in
        the same way (a pause of 5 ms, /readyz, the prediction: a CPU that was idle is slower); over 9 starts.

Exit code 0; 1 if something cannot run, or with --check if a bar does not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from loadtests import due, machine
from loadtests.bars import Bar, over, report
from loadtests.peers.processes import NotUp, Process, free_ports
from loadtests.version_server import BINARY, PATIENCE, REQUEST, Client, Server, serving

CYCLES = 20
SWAPS = 1000
STARTS = 9
FOLLOWING = 300  # requests after the first
PAUSE = 0.005  # seconds before a question whether it is ready, and so before each of those requests
IDLE = 20  # the niceness by which SCHED_IDLE goes in --load_niceness
MOST_P99, MOST_MEMORY, MOST_FIRST = 1.2, 1.1, 1.5


def quantile(values: Sequence[float], q: float) -> float:
    """The value that a share q of all are not above."""
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]


def bench_load(work: Path, models: Path, options: argparse.Namespace) -> list[Bar]:
    """p99 of version 1 while version 2 is loaded."""
    aside = models.with_name(models.name + "-aside")
    aside.mkdir(exist_ok=True)
    (models / "2").rename(aside / "2")
    bars: list[Bar] = []
    try:
        with serving(work, models, "all {}", f"--load_patience={options.patience:g}s") as server:
            alone = appear(server, models, aside, {})
            print(f"\nload: {options.megabytes:g} MB, loaded in {alone:.2f} s if nobody asks")
            with due.client(server.port, REQUEST, b'"version":1') as client:
                client.saturation(1)  # warms
                most = client.saturation(2)
                for share in options.shares:
                    bars += beside(server, client, models, aside, share, most, options)
            with due.client(server.port, REQUEST, b'"version":1') as crowd:
                crowd.offer(most * 10)  # more than can be answered: no connection is ever idle
                full = appear(server, models, aside, {})
                failed = crowd.stop().failed
            print(f"at full load: {full:.2f} s with --load_patience={options.patience:g}s")
            bars += [
                Bar(
                    "time to load at full load, of --load_patience and the time alone",
                    2,
                    full / (options.patience + alone),
                ),
                Bar("failed or mis-versioned at full load", 0, failed),
            ]
    finally:
        if (aside / "2").exists():
            (aside / "2").rename(models / "2")
    return bars


def appear(server: Server, models: Path, aside: Path, niceness: dict[int, int]) -> float:
    """Has version 2 come, be loaded and go again; the seconds until it was there."""
    begin = time.monotonic()
    (aside / "2").rename(models / "2")
    watch(server, lambda: server.state(2) == "AVAILABLE", niceness)
    took = time.monotonic() - begin
    (models / "2").rename(aside / "2")
    server.wait("", 2)
    return took


def beside(server: Server, client: due.Client, models: Path, aside: Path, share: float, most: float,
           options: argparse.Namespace) -> list[Bar]:  # fmt: skip
    """Rounds of a load and as long a stretch of nothing, at that share of saturation."""
    calm: list[tuple[float, float]] = []
    busy: list[tuple[float, float]] = []
    took: list[float] = []
    niceness: dict[int, int] = {}
    client.offer(share * most)
    time.sleep(1)
    for _ in range(options.rounds):
        begin = time.monotonic()
        took.append(appear(server, models, aside, niceness))
        busy.append((begin, begin + took[-1]))
        time.sleep(0.5)
        begin = time.monotonic()
        watch(server, lambda: time.monotonic() > begin + took[-1], {})  # noqa: B023
        calm.append((begin, time.monotonic()))
    offered = client.stop()
    asks = "at real-time priority" if offered.real_time else "at ordinary priority: its own waits are in the figures"
    print(f"\nat {share:.0%} of saturation: {share * most:,.0f} requests/s of {most:,.0f}, {options.rounds} loads "
          f"of {statistics.median(took):.2f} s; the client asks {asks}")  # fmt: skip
    print(f"{'ms':<14}{'requests':>10}{'p50':>8}{'p99':>8}{'worst':>8}{'client lag p99':>16}")
    for name, spans in (("alone", calm), ("while loading", busy)):
        asked = offered.within(spans)
        times = [each.took * 1e3 for each in asked]
        figures = f"{quantile(times, 0.5):>8.2f}{quantile(times, 0.99):>8.2f}{max(times):>8.2f}"
        print(f"{name:<14}{len(times):>10}{figures}{quantile([each.lag * 1e3 for each in asked], 0.99):>16.2f}")
    p99 = [[quantile([each.took for each in offered.within([span])], 0.99) for span in spans] for spans in (calm, busy)]
    ratios = [loading / steady for steady, loading in zip(*p99, strict=True)]
    print(f"p99 while loading, of p99 alone: least disturbed round {min(ratios):.2f}, "
          f"median {statistics.median(ratios):.2f}; "
          f"threads by niceness: {', '.join(f'{n}: {c}' for n, c in sorted(niceness.items()))}")  # fmt: skip
    return [
        over(f"p99 while a second version loads, of p99 alone, at {share:.0%} of saturation", MOST_P99, ratios),
        Bar("failed or mis-versioned while it loads", 0, offered.failed),
    ]


def watch(server: Server, until: Callable[[], bool], niceness: dict[int, int]) -> None:
    """Looks on until it is so, at the same pace whatever happens."""
    end = time.monotonic() + PATIENCE
    while not until():
        observe(server.process.pid, niceness)
        time.sleep(0.05)
        if time.monotonic() > end:
            raise NotUp(f"version 2 is not loaded:\n{server.process.tail()}")


def observe(pid: int, niceness: dict[int, int]) -> None:
    """Notes the most threads of each niceness that a process had at one time."""
    now: dict[int, int] = {}
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            nice = IDLE if int(fields[38]) == os.SCHED_IDLE else int(fields[16])
            now[nice] = now.get(nice, 0) + 1
    for nice, count in now.items():
        niceness[nice] = max(niceness.get(nice, 0), count)


def bench_memory(work: Path, models: Path, options: argparse.Namespace) -> list[Bar]:
    """Resident memory over load/unload cycles."""
    with serving(work, models, "specific { versions: 1 }") as server:
        client = Client(server.port)
        client.predict()
        first, loaded, unloaded = server.resident(), [], []
        for _ in range(CYCLES):
            server.say("/models/m/unload")
            unloaded.append(server.resident())
            server.say("/models/m/load")
            client.predict()
            loaded.append(server.resident())
        client.close()
    print(f"\nmemory: {options.megabytes:g} MB, {CYCLES} unloads and loads; resident MB")
    print(f"first load {first:.0f}; loaded again {min(loaded):.0f}-{max(loaded):.0f}, last {loaded[-1]:.0f}; "
          f"unloaded {min(unloaded):.0f}-{max(unloaded):.0f}")  # fmt: skip
    variables = options.megabytes * 1e6 / 2**20
    return [
        Bar(f"resident over {CYCLES} cycles, of the first load", MOST_MEMORY, max(loaded) / first),
        Bar("unloaded, of loaded less the variables", MOST_MEMORY, max(unloaded) / (first - variables)),
    ]


@dataclass
class Meant:
    """Which versions an answer may name: those that were meant at some time while it was asked for."""

    versions: set[int]
    history: list[tuple[float, frozenset[int]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.history.append((0.0, frozenset(self.versions)))

    def change(self, act: Callable[[], object], to: set[int]) -> None:
        """While it changes both may answer; what was before is out when act has returned."""
        self.history.append((time.monotonic(), frozenset(self.versions | to)))
        act()
        self.versions = to
        self.history.append((time.monotonic(), frozenset(to)))

    def allows(self, version: int, asked: float, answered: float) -> bool:
        ends = [at for at, _ in self.history[1:]] + [float("inf")]
        return any(
            version in meant
            for (begin, meant), end in zip(self.history, ends, strict=True)
            if begin <= answered and end >= asked
        )


def bench_swaps(work: Path, models: Path, options: argparse.Namespace) -> list[Bar]:
    """Label moves, rollbacks and restores under load."""
    records: list[tuple[str, int, int, float, float]] = []
    stop = threading.Event()

    def client(port: int, target: str) -> None:
        connection, seen = Client(port), []
        while not stop.is_set():
            asked = time.monotonic()
            status, version = connection.predict(target)
            seen.append((target, status, version, asked, time.monotonic()))
        connection.close()
        records.extend(seen)

    counts = {"label moves": 0, "rollbacks": 0, "restores": 0}
    with serving(work, models, "latest { num_versions: 2 }") as server:
        server.say("/models/m/labels/stable?version=2")
        label, latest = Meant({2}), Meant({3})
        clients = [
            threading.Thread(target=client, args=(server.port, target), daemon=True)
            for target in ("", "/labels/stable", "", "/labels/stable")
        ]
        for thread in clients:
            thread.start()
        began = time.monotonic()
        while sum(counts.values()) < options.swaps:
            for _ in range(3):
                for to in (3, 2):
                    label.change(lambda to=to: server.say(f"/models/m/labels/stable?version={to}"), {to})  # type: ignore[misc]
                    counts["label moves"] += 1
            latest.change(lambda: server.say("/models/m/rollback"), {2})  # 2 is loaded: at once
            counts["rollbacks"] += 1
            server.wait("AVAILABLE", 1)  # the policy wants two
            server.wait("END", 3)

            def restore() -> None:
                server.say("/models/m/restore")
                server.wait("AVAILABLE", 3)

            latest.change(restore, {3})
            counts["restores"] += 1
            server.wait("END", 1)
        took = time.monotonic() - began
        stop.set()
        for thread in clients:
            thread.join(PATIENCE)
    failed = sum(status != 200 for _, status, *_ in records)
    meant = {"": latest, "/labels/stable": label}
    wrong = sum(status == 200 and not meant[target].allows(version, asked, answered)
                for target, status, version, asked, answered in records)  # fmt: skip
    print(f"\nswaps: {', '.join(f'{count} {what}' for what, count in counts.items())} in {took:.0f} s, "
          f"{len(records):,} requests by 4 clients, {failed} failed, {wrong} mis-versioned")  # fmt: skip
    return [
        Bar(f"failed requests of {len(records):,} over {sum(counts.values()):,} swaps", 0, failed),
        Bar("mis-versioned answers", 0, wrong),
    ]


def bench_first(work: Path, models: Path, options: argparse.Namespace) -> list[Bar]:
    """The first request after ready."""
    ratios, firsts, steadies = [], [], []
    for _ in range(options.starts):
        port, control = free_ports(2)
        command = (str(BINARY.absolute()), "--model_name=m", f"--model_base_path={models}", f"--rest_api_port={port}",
                   f"--control_port={control}")  # fmt: skip
        process = Process("go_infer", command, work)
        try:
            process.wait_for_port(port)
            client = Client(port)
            end = time.monotonic() + PATIENCE
            while not client.ready():
                if time.monotonic() > end:
                    raise NotUp(f"go_infer is not ready:\n{process.tail()}")
                time.sleep(PAUSE)
            times = []
            for count in range(FOLLOWING + 1):
                if count:  # as the first came: after a pause, and after /readyz
                    time.sleep(PAUSE)
                    client.ready()
                began = time.perf_counter()
                status, _ = client.predict()
                times.append((time.perf_counter() - began) * 1e3)
                if status != 200:
                    raise NotUp(f"a prediction was answered with {status}")
            client.close()
        finally:
            process.stop(15)
        firsts.append(times[0])
        steadies.append(statistics.median(times[1:]))
        ratios.append(firsts[-1] / steadies[-1])
    print(f"\nfirst: over {options.starts} starts, ms")
    print(f"first {statistics.median(firsts):.3f} ({min(firsts):.3f}-{max(firsts):.3f}); "
          f"p50 of the {FOLLOWING} that follow {statistics.median(steadies):.3f}")  # fmt: skip
    return [over("first request after ready, of the steady p50", MOST_FIRST, ratios)]


BENCHES = {"load": bench_load, "memory": bench_memory, "swaps": bench_swaps, "first": bench_first}
LARGE = ("load", "memory")


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench_lifecycle", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default=",".join(BENCHES), help="which measurements (default: %(default)s)")
    parser.add_argument("--megabytes", type=float, default=200, help="of the large model (default: %(default)s)")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.02, 0.3, 0.6], metavar="SHARE",
                        help="of saturation that is offered beside a load (default: %(default)s)")  # fmt: skip
    parser.add_argument("--patience", type=float, default=3, help="seconds, --load_patience (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=8, help="loads of the second version (default: %(default)s)")
    parser.add_argument("--swaps", type=int, default=SWAPS, help="(default: %(default)s)")
    parser.add_argument("--starts", type=int, default=STARTS, help="(default: %(default)s)")
    parser.add_argument("--models", type=Path, help="keep the models there, and use those that are")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a bar does not hold")
    options = parser.parse_args(arguments)
    chosen = options.only.split(",")
    unknown = [name for name in chosen if name not in BENCHES]
    if unknown or not BINARY.exists():
        reason = "build first: python -m backends.build"
        if unknown:
            reason = f"no measurement {unknown[0]!r}; there are {', '.join(BENCHES)}"
        print(f"bench_lifecycle: {reason}", file=sys.stderr)
        return 1
    bars: list[Bar] = []
    with tempfile.TemporaryDirectory(prefix="lifecycle-") as temporary:
        work = Path(temporary)
        try:
            for name in chosen:
                kind, versions, megabytes = ("large", 2, options.megabytes) if name in LARGE else ("small", 3, 0.1)
                models = (options.models or work) / kind
                if not models.exists():
                    command = (sys.executable, "-m", "loadtests.version_models", str(models), f"--versions={versions}",
                               f"--megabytes={megabytes:g}")  # fmt: skip
                    subprocess.run(command, check=True, capture_output=True, text=True)
                bars += BENCHES[name](work, models.absolute(), options)
        except (NotUp, OSError) as problem:
            print(f"bench_lifecycle: {problem}", file=sys.stderr)
            return 1
        except subprocess.CalledProcessError as problem:
            print(f"bench_lifecycle: the models cannot be made: {problem.stderr[-500:]}", file=sys.stderr)
            return 1
    print()
    machine.warn()
    return report(bars, check=options.check)


if __name__ == "__main__":
    sys.exit(main())
