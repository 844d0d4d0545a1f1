"""What models answer that do not fit into the memory together: lazy loading, and how long a model stays.

    python -m loadtests.bench_lazy [--check] [--stays 0 1x 4x 16x] [--megabytes 20] [--seconds 10] [--rounds 3]

Three models, and a memory budget for one of them. Two clients of each model ask for it with a pause of 5 ms, and all
wait as long as it takes. Rounds alternate between the settings of --lazy_min_stay and a budget for all three: answers,
of those with room for all (a third is the most: only who asks for the model that is loaded is answered); waits; loads;
the answers of the model that got fewest, of those of the one that got most.

Exit code 0; 1 if something cannot run, or with --check if a bar does not hold.
"""

from __future__ import annotations

import argparse
import http.client
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from loadtests.bars import Bar, Floor, at_least, report
from loadtests.peers.processes import NotUp, Process, free_ports

BINARY = Path("build/bin/go_infer")
NAMES = ("a", "b", "c")
CLIENTS = 2  # of each model
PAUSE = 0.005  # seconds between an answer and the next question
PATIENCE = 60.0  # seconds that a client waits
ROOM = "room for all"
DEFAULT = "4x"
LEAST_ANSWERS, LEAST_SHARE = 0.2, 0.5


@dataclass(frozen=True, slots=True)
class Round:
    """What became of one round; waits in seconds."""

    answers: dict[str, int]
    failed: int
    waits: list[float]
    loads: int

    @property
    def total(self) -> int:
        return sum(self.answers.values())

    def wait(self, q: float) -> float:
        """The wait that a share q of all are not above."""
        return self.waits[min(len(self.waits) - 1, int(q * len(self.waits)))]

    @property
    def share(self) -> float:
        """Of the model with most answers, those of the one with fewest."""
        return min(self.answers.values()) / max(1, max(self.answers.values()))


def ask(port: int, name: str, end: float, waits: list[float], failed: list[int]) -> None:
    """One client, until that time."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    while time.monotonic() < end:
        began = time.monotonic()
        connection.request("POST", f"/v1/models/{name}:predict", '{"instances":[1.0]}')
        answer = connection.getresponse()
        answer.read()
        if answer.status == 200:
            waits.append(time.monotonic() - began)
        else:
            failed.append(answer.status)
        time.sleep(PAUSE)
    connection.close()


def ready(port: int, process: Process) -> None:
    """Returns when the server is: with lazy loading that is when it knows what there is."""
    end = time.monotonic() + PATIENCE
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
        connection.close()
        if status == 200:
            return
        if time.monotonic() > end or not process.running:
            raise NotUp(f"go_infer is not ready:\n{process.tail()}")
        time.sleep(0.01)


def serve(work: Path, base: Path, flags: list[str], seconds: float) -> Round:
    """One round with a server of its own."""
    config = work / "models.config"
    models = "".join(f'config {{ name: "{name}" base_path: "{base}" }}\n' for name in NAMES)
    config.write_text(f"model_config_list {{ {models} }}\n")
    [port] = free_ports(1)
    command = [str(BINARY.absolute()), f"--model_config_file={config}", f"--rest_api_port={port}", "--port=-1",
               "--lazy_load", "--lazy_load_timeout=60s", *flags]  # fmt: skip
    process = Process("go_infer", command, work)
    try:
        process.wait_for_port(port)
        ready(port, process)
        waits: dict[str, list[float]] = {name: [] for name in NAMES}
        failed: list[int] = []
        end = time.monotonic() + seconds
        threads = [
            threading.Thread(target=ask, args=(port, name, end, waits[name], failed))
            for name in NAMES
            for _ in range(CLIENTS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(seconds + PATIENCE)
        loads = process.log.read_text().count('"msg":"model loaded"')
        answers = {name: len(each) for name, each in waits.items()}
        return Round(answers, len(failed), sorted(wait for each in waits.values() for wait in each), loads)
    finally:
        process.stop(15)


def compare(work: Path, base: Path, options: argparse.Namespace) -> list[Bar]:
    """All settings in turn."""
    size = sum(path.stat().st_size for path in (base / "1").rglob("*") if path.is_file())
    one = int(size * 1.2 * 1.5)
    settings = {ROOM: [f"--model_memory_budget={4 * one}"]}
    for stay in options.stays:
        settings[stay] = [f"--model_memory_budget={one}", f"--lazy_min_stay={stay}"]
    rounds: dict[str, list[Round]] = {name: [] for name in settings}
    for _ in range(options.rounds):
        for name, flags in settings.items():
            rounds[name].append(serve(work, base, flags, options.seconds))
    clients = len(NAMES) * CLIENTS
    print(
        f"\n3 models of {size / 1e6:.1f} MB, {clients} clients, {options.seconds:g} s, {options.rounds} rounds; medians"
    )
    print(f"{'--lazy_min_stay':<16}{'answers':>9}{'of all':>8}{'loads':>7}{'p50 ms':>9}{'p99 ms':>9}{'worst':>8}"
          f"{'fewest/most':>13}{'failed':>8}")  # fmt: skip
    for name, each in rounds.items():
        parts = [one.total / full.total for one, full in zip(each, rounds[ROOM], strict=True)]
        p50, p99, worst = (statistics.median(one.wait(q) for one in each) * 1e3 for q in (0.5, 0.99, 1))
        answers, loads, share = (
            statistics.median(figures)
            for figures in zip(*((one.total, one.loads, one.share) for one in each), strict=True)
        )
        print(f"{name:<16}{answers:>9,.0f}{statistics.median(parts):>8.0%}{loads:>7.0f}{p50:>9.1f}{p99:>9.0f}{worst:>8.0f}"
              f"{share:>13.2f}{sum(one.failed for one in each):>8}")  # fmt: skip
    bars: list[Bar] = [Bar("failed requests", 0, sum(one.failed for each in rounds.values() for one in each))]
    if DEFAULT in rounds:
        parts = [one.total / full.total for one, full in zip(rounds[DEFAULT], rounds[ROOM], strict=True)]
        shares = [one.share for one in rounds[DEFAULT]]
        fair: Floor = at_least("answers of the model that got fewest, of the one that got most", LEAST_SHARE, shares)
        bars += [
            at_least("answers of three models in the memory of one, of those with room", LEAST_ANSWERS, parts),
            fair,
        ]
    return bars


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench_lazy", description=__doc__.partition("\n")[0])
    parser.add_argument("--stays", nargs="+", default=["0", "1x", DEFAULT, "16x"], metavar="STAY",
                        help="settings of --lazy_min_stay (default: %(default)s)")  # fmt: skip
    parser.add_argument("--megabytes", type=float, default=20, help="of each model (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=10, help="of a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a bar does not hold")
    options = parser.parse_args(arguments)
    if not BINARY.exists():
        print("bench_lazy: build first: python -m backends.build", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="lazy-") as temporary:
        work = Path(temporary)
        base = work / "m"
        make = (
            sys.executable,
            "-m",
            "loadtests.version_models",
            str(base),
            "--versions=1",
            f"--megabytes={options.megabytes:g}",
        )
        try:
            subprocess.run(make, check=True, capture_output=True, text=True)
            bars = compare(work, base, options)
        except (NotUp, OSError) as problem:
            print(f"bench_lazy: {problem}", file=sys.stderr)
            return 1
        except subprocess.CalledProcessError as problem:
            print(f"bench_lazy: the models cannot be made: {problem.stderr[-500:]}", file=sys.stderr)
            return 1
    print()
    return report(bars, check=options.check)


if __name__ == "__main__":
    sys.exit(main())
