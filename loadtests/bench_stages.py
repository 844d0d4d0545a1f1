"""Where the microseconds of a request go, stage by stage, beside the measured whole (`make bench`).

    python -m loadtests.bench_stages [--rounds 3]

Stages are timed alone on the installed, compiled gateway (`stages.py`): no system call, hot caches. The whole is
the worker's CPU a request under a closed loop, split into user and system time as the kernel accounts it. What the
stages do not explain of the user time is the event loop's (uvloop), tasks and futures, the pipeline that joins the
stages, and colder caches.

Exit code 0; 1 if it cannot run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from loadtests import wrk
from loadtests.load.report import aligned
from loadtests.peers.processes import TICKS_PER_SECOND, NotUp
from loadtests.peers.programs import find_program
from loadtests.peers.sluicegate import Sluicegate
from loadtests.stand import HEADERS, PATH, standing
from loadtests.wrk import Failed, Scenario


@dataclass(frozen=True, slots=True)
class Whole:
    """Microseconds a request."""

    user: float
    system: float


def times(stat: str) -> tuple[float, float]:
    """Seconds of user and of system time from the text of /proc/PID/stat."""
    fields = stat.rpartition(")")[2].split()
    return int(fields[11]) / TICKS_PER_SECOND, int(fields[12]) / TICKS_PER_SECOND


def text(stages: Mapping[str, float], whole: Whole) -> str:
    """One table: the stages, their sum, what is left of the user time, the kernel's, the whole."""
    total = whole.user + whole.system
    known = sum(us for name, us in stages.items() if not name.startswith("("))  # in brackets: of stages that count too
    figures = [*stages.items(), ("sum of the stages", known), ("event loop, tasks, pipeline", whole.user - known)]
    figures += [("user time, measured", whole.user), ("system time, measured", whole.system), ("the whole", total)]
    rows = [("", "us", "share")] + [(name, f"{us:.2f}", f"{us / total:.0%}") for name, us in figures]
    return "\n".join(aligned(rows))


def time_stages(config: Path) -> dict[str, float]:
    """Runs `stages.py` where it finds the installed gateway, and not the sources."""
    script = Path(__file__).with_name("stages.py")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-P", str(script), str(config)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, env=environment, cwd=config.parent
    )
    if done.returncode:
        raise NotUp(f"the stages could not be timed: {done.stderr.strip()[-600:]}")
    result = json.loads(done.stdout)
    if not result["compiled"]:
        print("warning: this gateway is not compiled: run `make run` with a C compiler", file=sys.stderr)
    return {str(name): float(us) for name, us in result["stages"].items()}


def measure(rounds: int, seconds: float) -> tuple[dict[str, float], Whole]:
    """The stages and the whole."""
    gateway = Sluicegate()
    with standing(gateway) as stand:
        scenario = Scenario("GET", "GET", PATH)
        script = scenario.script(HEADERS, stand.workdir / "get.lua")
        port = stand.ports[gateway.name]
        wrk.run(port, PATH, script, connections=64, seconds=1)
        stat = Path(f"/proc/{gateway.roles()['proxy'][0]}/stat")
        found: list[Whole] = []
        for _ in range(rounds):
            before = times(stat.read_text())
            done = wrk.run(port, PATH, script, connections=64, seconds=seconds)
            user, system = (b - a for a, b in zip(before, times(stat.read_text()), strict=True))
            found.append(Whole(user / done.requests * 1e6, system / done.requests * 1e6))
        stages = time_stages(stand.workdir / gateway.name / "gateway.yaml")
    return stages, Whole(statistics.median(o.user for o in found), statistics.median(o.system for o in found))


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser("python -m loadtests.bench_stages", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="of the whole (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each round (default: %(default)s)")
    options = parser.parse_args(argv)
    if not (1 <= options.rounds <= 50 and 1 <= options.seconds <= 60):
        parser.error("--rounds or --seconds out of range")
    if not find_program("wrk"):
        print("bench_stages: wrk is needed: run `make bench-peers`", file=sys.stderr)
        return 1
    try:
        stages, whole = measure(options.rounds, options.seconds)
    except (NotUp, Failed, OSError, subprocess.TimeoutExpired) as error:
        print(f"bench_stages: {error}", file=sys.stderr)
        return 1
    print("GET with every policy on, one worker, 64 keep-alive clients; microseconds of CPU a request")
    print(text(stages, whole))
    return 0


if __name__ == "__main__":
    sys.exit(main())
