"""What an ordinary client notices while slow attackers hold 1,000 connections (`make bench`).

    python -m loadtests.bench_slow [--full]

slowhttptest sends heads that never end (-H), bodies that never end (-B) and requests for thousands of overlapping
ranges (-R, over and over, for each is answered at once) to one worker with every policy on. Meanwhile an ordinary
client asks in an open loop; its p99, in windows of half a second, is held against windows before and after the attack,
median to median: a virtual machine stalls for some milliseconds once or twice a second, and longer windows would all
tell of that. --full attacks for 60 s each, otherwise 12 s.

Exit code 0, also where slowhttptest is not installed (it says so); 1 if it cannot run, or with --check if a bar is
missed or cannot be measured.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from loadtests import machine, openload
from loadtests.bars import Bar, report
from loadtests.openload import Open
from loadtests.peers.processes import NotUp, Process
from loadtests.peers.programs import find_program
from loadtests.peers.sluicegate import Sluicegate
from loadtests.stand import PATH, standing
from loadtests.wrk import Failed

BAR = 2.0
CONNECTIONS = 1_000
RATE = 500  # requests a second of the ordinary client
WINDOW = 0.5  # seconds
QUIET = 12  # windows before an attack, and after it
SETTLE = 2.5  # seconds until the attack stands
KINDS = {
    "-H": ("slow heads", ["-r", "500", "-i", "10", "-x", "24", "-t", "GET"]),
    "-B": ("slow bodies", ["-r", "500", "-i", "10", "-x", "10", "-s", "8192", "-t", "POST"]),
    "-R": ("ranges", ["-r", "200", "-a", "10", "-b", "3000", "-t", "HEAD"]),
}


def command(kind: str, port: int, seconds: float) -> list[str]:
    """slowhttptest against a loopback port; it ends by itself."""
    program = find_program("slowhttptest") or "slowhttptest"
    return [
        program, kind, "-c", str(CONNECTIONS), "-l", str(round(seconds)), "-p", "3",
        *KINDS[kind][1], "-v", "0", "-u", f"http://127.0.0.1:{port}{PATH}",
    ]  # fmt: skip


def bar(kind: str, without: Sequence[Open], under: Sequence[Open]) -> Bar:
    """Median of the windows to median of the windows; the spread is of single windows to that median."""
    claim = f"p99 under {KINDS[kind][0]} ({kind}) to p99 without"
    if not (without and under):
        return Bar(claim, BAR, None, unit="x")
    quiet = statistics.median(one.p99 for one in without)
    each = [one.p99 / quiet for one in under]
    return Bar(claim, BAR, statistics.median(each), min(each), max(each), "x")


def _windows(port: int, count: int) -> list[Open]:
    return [openload.run(port, rate=RATE, seconds=WINDOW, connections=16, seed=i + 1) for i in range(count)]


def attack(kind: str, port: int, seconds: float, workdir: Path) -> tuple[list[Open], list[Open], int]:
    """Windows without and under the attack, and how many connections were seen open at the most."""
    without = _windows(port, QUIET)
    held = 0
    under: list[Open] = []
    name, attacker = f"slowhttptest{kind}", command(kind, port, seconds + SETTLE)
    process = Process(name, attacker, workdir)
    try:
        end = time.monotonic() + seconds + SETTLE - WINDOW
        time.sleep(SETTLE)
        while time.monotonic() < end:
            if not process.running:
                process = Process(name, attacker, workdir)
            held = max(held, established(port, Path("/proc/net/tcp").read_text()))
            under += _windows(port, 1)
    finally:
        process.stop()
    time.sleep(1.0)
    return without + _windows(port, QUIET), under, held


def established(port: int, proc_net_tcp: str) -> int:
    """Connections that are open on a local port, from the text of /proc/net/tcp."""
    ours = f":{port:04X}"
    rows = [line.split() for line in proc_net_tcp.splitlines()[1:]]
    return sum(1 for row in rows if len(row) > 3 and row[1].endswith(ours) and row[3] == "01")


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser("python -m loadtests.bench_slow", description=__doc__.partition("\n")[0])
    parser.add_argument("--full", action="store_true", help="attack for 60 s each, not 12")
    parser.add_argument("--check", action="store_true", help="exit 1 if a bar is missed or cannot be measured")
    options = parser.parse_args(argv)
    if not find_program("slowhttptest"):
        print("bench_slow: skipped: slowhttptest is not installed; run `make bench-peers` as root", file=sys.stderr)
        return 1 if options.check else 0
    bars: list[Bar] = []
    gateway = Sluicegate()
    try:
        with standing(gateway) as stand:
            port = stand.ports[gateway.name]
            _windows(port, 1)  # warms up
            for kind in KINDS:
                without, under, held = attack(kind, port, 60 if options.full else 12, stand.workdir)
                worst = max((one.worst for one in under), default=0.0)
                print(
                    f"{KINDS[kind][0]}: {held} connections open at most; ordinary client p99 "
                    f"{statistics.median(one.p99 for one in without):.2f} ms without, "
                    f"{statistics.median(one.p99 for one in under):.2f} ms under it, worst answer {worst:.1f} ms",
                    flush=True,
                )
                bars.append(bar(kind, without, under))
    except (NotUp, Failed, OSError) as error:
        print(f"bench_slow: {error}", file=sys.stderr)
        return 1
    machine.warn()
    return report(bars, check=options.check)


if __name__ == "__main__":
    sys.exit(main())
