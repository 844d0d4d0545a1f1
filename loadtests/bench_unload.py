"""What clients notice while a large model is unloaded: freeing it must not hold up those who are served.

    python -m loadtests.bench_unload [--check] [--megabytes 200] [--shares 0.1 0.3] [--rounds 20]

Requests for version 1, open loop (loadtests/due.py), while version 2 of a model of --megabytes is loaded (which is not
measured here) and taken away. Rounds alternate between an unload, from when its directory is gone until the server
says that it is freed, and as long a stretch of nothing. p99 over the requests of all rounds; the worst of each round.

Exit code 0; 1 if something cannot run, or with --check if a bar does not hold.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from loadtests import due, machine
from loadtests.bars import Bar, report
from loadtests.bench_lifecycle import quantile
from loadtests.peers.processes import NotUp
from loadtests.version_server import BINARY, REQUEST, Server, serving

MARGIN = 0.05  # seconds after an unload in which its consequences are still looked for
SETTLE = 0.3  # seconds between what was measured and what will be
MOST_P99 = 1.2


def unloads(work: Path, models: Path, options: argparse.Namespace) -> list[Bar]:
    """Rounds of an unload and as long a stretch of nothing, at each share of saturation."""
    aside = models.with_name(models.name + "-aside")
    aside.mkdir(exist_ok=True)
    (models / "2").rename(aside / "2")
    bars: list[Bar] = []
    with (
        serving(work, models, "all {}", *options.flags) as server,
        due.client(server.port, REQUEST, b'"version":1') as client,
    ):
        client.saturation(1)  # warms
        most = client.saturation(2)
        print(f"\n{'':<22}{'requests':>10}{'p50 ms':>8}{'p99':>8}{'worst of a round':>18}")
        for share in options.shares:
            calm: list[tuple[float, float]] = []
            busy: list[tuple[float, float]] = []
            client.offer(share * most)
            for _ in range(options.rounds):
                (aside / "2").rename(models / "2")
                server.wait("AVAILABLE", 2)
                time.sleep(SETTLE)
                busy.append(unload(server, models, aside))
                time.sleep(SETTLE)
                calm.append(watch(server, busy[-1][1] - busy[-1][0]))
            bars += judge(client.stop(), share, share * most, calm, busy)
    return bars


def watch(server: Server, seconds: float) -> tuple[float, float]:
    """Asks as `unload` does, for it costs the server's cores something, and nothing happens; from when until when."""
    begin = time.monotonic()
    while time.monotonic() < begin + seconds - MARGIN:
        server.state(2)
        time.sleep(0.01)
    time.sleep(MARGIN)
    return begin, time.monotonic()


def unload(server: Server, models: Path, aside: Path) -> tuple[float, float]:
    """Takes version 2 away; from when until when."""
    begin = time.monotonic()
    (models / "2").rename(aside / "2")
    server.wait("", 2)
    time.sleep(MARGIN)
    return begin, time.monotonic()


def judge(
    offered: due.Offered, share: float, rate: float, calm: list[tuple[float, float]], busy: list[tuple[float, float]]
) -> list[Bar]:
    """Prints what became of it."""
    p99: list[float] = []
    for name, spans in (("alone", calm), ("while unloading", busy)):
        times = [each.took * 1e3 for each in offered.within(spans)]
        worst = statistics.median(max(each.took for each in offered.within([span])) * 1e3 for span in spans)
        p99.append(quantile(times, 0.99))
        line = f"{len(times):>10}{quantile(times, 0.5):>8.2f}{p99[-1]:>8.2f}{worst:>18.2f}"
        print(f"{name:<16}{rate:>5,.0f}/s{line}")
    return [
        Bar(f"p99 while a version is unloaded, of p99 alone, at {share:.0%} of saturation", MOST_P99, p99[1] / p99[0]),
        Bar("failed or mis-versioned while it is unloaded", 0, offered.failed),
    ]


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench_unload", description=__doc__.partition("\n")[0])
    parser.add_argument("--megabytes", type=float, default=200, help="of the model (default: %(default)s)")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.1, 0.3], metavar="SHARE",
                        help="of saturation that is offered (default: %(default)s)")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=20, help="unloads at each share (default: %(default)s)")
    parser.add_argument("--flags", nargs="*", default=[], metavar="FLAG", help="for go_infer, without the dashes")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a bar does not hold")
    options = parser.parse_args(arguments)
    options.flags = [f"--{flag}" for flag in options.flags]
    if not BINARY.exists():
        print("bench_unload: build first: python -m backends.build", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="unload-") as temporary:
        work, models = Path(temporary), Path(temporary) / "m"
        make = [sys.executable, "-m", "loadtests.version_models", str(models), "--versions=2"]
        try:
            subprocess.run([*make, f"--megabytes={options.megabytes:g}"], check=True, capture_output=True, text=True)
            bars = unloads(work, models, options)
        except (NotUp, OSError) as problem:
            print(f"bench_unload: {problem}", file=sys.stderr)
            return 1
        except subprocess.CalledProcessError as problem:
            print(f"bench_unload: the models cannot be made: {problem.stderr[-500:]}", file=sys.stderr)
            return 1
    print()
    machine.warn()
    return report(bars, check=options.check)


if __name__ == "__main__":
    sys.exit(main())
