"""What the Runs of a model cost by themselves: the floor under every protocol, measured where the benchmark runs."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from backends import toolchain
from backends.build import MODULE, go_environment
from backends.interrupt import Interrupts

SECONDS = 300.0  # the first time the benchmark is compiled


def bare_runs(models: Path, work: Path) -> dict[int, float]:
    """Microseconds of processor time of one TF_SessionRun of digits version 2, by its rows: the sizes of batches.

    From `go test -bench BareRun ./internal/session`. RuntimeError quotes what it said if it cannot run.
    """
    with Interrupts() as interrupts:
        tools = toolchain.find(lambda _: None, work, interrupts)
    command = [tools.go, "test", "./internal/session", "-run", "none", "-bench", "BareRun", "-benchtime", "300ms"]
    environment = {**os.environ, **go_environment(tools), "SLUICEGATE_MODELS": str(models)}
    done = subprocess.run(
        command, cwd=MODULE, env=environment, capture_output=True, text=True, check=False, timeout=SECONDS
    )
    lines = re.findall(r"BareRun/rows=(\d+)\S*.*?([\d.]+) cpu-ns/op", done.stdout)
    found = {int(rows): float(nanoseconds) / 1e3 for rows, nanoseconds in lines}
    if not found:
        raise RuntimeError(f"the bare Run cannot be measured:\n{done.stdout[-800:]}{done.stderr[-800:]}")
    return found
