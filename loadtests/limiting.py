"""Workers of limiter benchmarks as processes: started together, told to begin together, heard to the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gateway.processes import die_with_parent
from loadtests.limit_worker import Task, Told
from loadtests.peers.processes import NotUp

SCRIPT = Path(__file__).with_name("limit_worker.py")


class Team:
    """`sources`: run the sources beside this file and not the installed, compiled gateway."""

    def __init__(self, tasks: Sequence[Task], *, sources: bool = False) -> None:
        root = str(SCRIPT.parents[1])
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        env |= {"PYTHONPATH": root} if sources else {}
        self.tasks = tasks
        self.workers = [
            subprocess.Popen(
                [sys.executable, "-P", str(SCRIPT), json.dumps(asdict(task))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=env,
                cwd="/",
                preexec_fn=die_with_parent,
            )
            for task in tasks
        ]
        for worker in self.workers:
            assert worker.stdout is not None
            if worker.stdout.readline().strip() != "ready":
                self.stop()
                raise NotUp(f"a worker did not start: {worker.communicate()[1][-800:]}")

    def begin(self) -> None:
        """All begin now."""
        for worker in self.workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()

    def end(self) -> list[Told]:
        """What each found. Raises NotUp for one that failed."""
        found = []
        try:
            for worker, task in zip(self.workers, self.tasks, strict=True):
                out, err = worker.communicate(timeout=task.seconds + 60)
                if worker.returncode:
                    raise NotUp(f"a worker failed: {err[-800:]}")
                given: dict[str, Any] = json.loads(out.splitlines()[-1])
                found.append(Told(**given))
        finally:
            self.stop()
        return found

    def stop(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.kill()
                worker.wait()
