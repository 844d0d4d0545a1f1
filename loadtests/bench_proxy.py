"""CPU per proxied request: the gateway with every policy on, beside the proxies people know (`make bench`).

One worker of each in one run. All are started first, then rounds go over them in turn, each time in another order, so
that a machine that becomes slower hits everybody alike. A round is one `wrk` run of 64 keep-alive clients; CPU is
user plus system time of the proxy's processes during it, divided by the requests answered. Figures are medians of the
rounds. Absolute figures hold for this machine and hour; the ratios are what to compare.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from loadtests import bench_report
from loadtests.measure import Backing, Measured, prove, take, take_quiet
from loadtests.peers import PEERS, Peer
from loadtests.peers.backing import Echo, Origin, Store
from loadtests.peers.echoed import ECHO
from loadtests.peers.processes import NotUp
from loadtests.peers.programs import ROOT, find_program, find_valkey
from loadtests.peers.sluicegate import CLIENT_KEY
from loadtests.wrk import Failed, Scenario

HEADERS = {"X-API-Key": CLIENT_KEY}
# A digits request: 8x8 images as TF-Serving rows, 2.9 kB.
ROW = "[" + ", ".join(f"{(i * 7) % 19}.0" for i in range(64)) + "]"
BODY = f'{{"signature_name": "serving_default", "instances": [{", ".join([ROW] * 8)}]}}'.encode()
SCENARIOS = (
    Scenario("GET", "GET", "/v1/models/digits"),
    Scenario("POST 2.9 kB", "POST", "/v1/models/digits:predict", BODY),
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser("python -m loadtests.bench_proxy", description=__doc__)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--seconds", type=float, default=3.0, help="of each round of each peer (default 3)")
    p.add_argument("--connections", type=int, default=64)
    p.add_argument("--peers", default=",".join(PEERS), help="names, separated by commas (default: all)")
    p.add_argument("--output", type=Path, default=ROOT / "build" / "bench" / "proxy.json")
    p.add_argument("--format", choices=("text", "json"), default="text")
    p.add_argument("--check", action="store_true", help="exit 1 if a bar is missed or cannot be measured")
    return p


def missing_tools() -> list[str]:
    """Programs that no run can do without."""
    found = {"wrk": find_program("wrk"), "nginx": find_program("nginx"), "a Valkey or Redis server": find_valkey()}
    return [name for name, program in found.items() if not program]


def start(
    names: list[str], origins: Mapping[str, Origin | Echo], store: Store, workdir: Path, stack: contextlib.ExitStack
) -> tuple[dict[str, tuple[Peer, int]], dict[str, str]]:
    """Start what can be started and shows that it works; peers with their ports, and why others stay out."""
    running: dict[str, tuple[Peer, int]] = {}
    skipped: dict[str, str] = {}
    for name in names:
        peer = PEERS[name]()
        reason = peer.available()
        if reason is None:
            home = workdir / name.replace("/", "-").replace(" ", "-")
            home.mkdir()
            stack.callback(peer.stop)
            try:
                port = peer.start(origins[peer.origin].endpoint, store.endpoint, home)
                prove(peer, port, store, HEADERS)
            except (NotUp, OSError) as error:
                reason = str(error)
                peer.stop()
            else:
                running[name] = (peer, port)
        if reason is not None:
            skipped[name] = reason
            print(f"bench: {name} stays out: {reason}", file=sys.stderr, flush=True)
    return running, skipped


def rounds(
    arguments: argparse.Namespace,
    running: dict[str, tuple[Peer, int]],
    skipped: dict[str, str],
    backing: Backing,
    workdir: Path,
) -> list[Measured]:
    """Every scenario, every peer, in turn; one that fails is not measured further and goes to ``skipped``."""
    began = time.monotonic()
    measured: list[Measured] = []
    for scenario in SCENARIOS:
        script = scenario.script(HEADERS, workdir / f"{scenario.method}.lua")
        rows = {name: Measured(name, scenario.name) for name in running}
        # The first turn warms up and is not kept.
        for turn in range(arguments.rounds + 1):
            names = list(running)
            first = turn % max(1, len(names))
            for name in names[first:] + names[:first]:
                peer, port = running[name]
                measure, seconds = (take_quiet, arguments.seconds) if turn else (take, 1)
                try:
                    one = measure(peer, port, scenario, script, backing, arguments.connections, seconds)
                except Failed as error:
                    skipped[name] = f"{scenario.name}: {error}"
                    del running[name]
                    continue
                if turn:
                    rows[name].rounds.append(one)
            _progress(f"{scenario.name}: round {turn} of {arguments.rounds}, {time.monotonic() - began:.0f} s")
        measured += [row for name, row in rows.items() if name in running]
    return measured


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"bench: {text}", file=sys.stderr, flush=True)


def main(argv: list[str] | None = None) -> int:
    """Exit 0; 1 when nothing could be measured or, with --check, a bar is missed; 2 for a wrong command line."""
    arguments = parser().parse_args(argv)
    names = arguments.peers.split(",")
    unknown = [name for name in names if name not in PEERS]
    if unknown or arguments.rounds < 1 or not 1 <= arguments.seconds <= 60:
        known = ", ".join(PEERS)
        print(f"bench: unknown peers {unknown}, or rounds or seconds out of range; peers: {known}", file=sys.stderr)
        return 2
    missing = missing_tools()
    if missing:
        print(f"bench: needs {', '.join(missing)}: run `make bench-peers`", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is stopped
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        workdir = Path(temporary)
        with contextlib.ExitStack() as stack:
            try:
                origins: dict[str, Origin | Echo] = {"nginx": Origin(workdir)}
                stack.callback(origins["nginx"].stop)
                if find_program("linkecho"):
                    origins[ECHO] = Echo(workdir)
                    stack.callback(origins[ECHO].stop)
                store = Store(workdir)
                stack.callback(store.stop)
                running, skipped = start(names, origins, store, workdir, stack)
                measured = rounds(arguments, running, skipped, (store, *origins.values()), workdir)
            except NotUp as error:
                print(f"bench: {error}", file=sys.stderr)
                return 1
    result = bench_report.as_dict(measured, skipped, arguments.connections, arguments.seconds)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2) if arguments.format == "json" else bench_report.text(result))
    held = all(bar["holds"] for bar in result["bars"])
    return 0 if measured and (held or not arguments.check) else 1


if __name__ == "__main__":
    raise SystemExit(main())
