"""The build commands as real processes, in the way that a terminal or make runs them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PATIENCE = 30.0  # seconds until a command that does not end is taken for hung


@dataclass
class Ended:
    status: int
    out: str
    err: str

    @property
    def last_words(self) -> str:
        """The only line on stderr that is the command's own."""
        ours = [line for line in self.err.splitlines() if line.startswith("backends.")]
        assert len(ours) == 1, self.err
        assert self.err.rstrip().endswith(ours[0]), self.err
        assert "Traceback" not in self.err + self.out
        return ours[0]


class Command:
    """`python -m MODULE ARGUMENTS` as the leader of a process group of its own."""

    def __init__(self, *arguments: str, python: str = sys.executable, **environment: str) -> None:
        self.process = subprocess.Popen(
            [python, "-m", *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - may be ignored here
        )
        self.said = ""

    def read_until(self, words: str) -> None:
        assert self.process.stdout is not None
        while words not in self.said:
            line = self.process.stdout.readline()
            assert line, f"it ended without saying {words!r}: {self.end().err}"
            self.said += line

    def interrupt(self) -> None:
        """Ctrl-C: every process of the group is told."""
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self) -> Ended:
        out, err = self.process.communicate(timeout=PATIENCE)
        return Ended(self.process.returncode, self.said + out, err)

    def alive(self) -> bool:
        """True if any process of the group is left."""
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # it ended while we looked
                state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
                if int(group) == self.process.pid and state != "Z":
                    return True
        return False

    def left(self) -> bool:
        """True if the group lives on; what was killed is given a moment to die."""
        until = time.monotonic() + PATIENCE
        while self.alive() and time.monotonic() < until:
            time.sleep(0.01)
        return self.alive()


@pytest.fixture
def command() -> Iterator[Callable[..., Command]]:
    started: list[Command] = []

    def start(*arguments: str, **options: str) -> Command:
        started.append(Command(*arguments, **options))
        return started[-1]

    yield start
    for each in started:
        if each.alive():
            os.killpg(each.process.pid, signal.SIGKILL)
        each.process.communicate()


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str, str], Path]:
    """Writes a shell script: a tool that is not what it should be."""

    def write(name: str, body: str) -> Path:
        path = tmp_path / "tools" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    return write


def files(directory: Path) -> list[str]:
    """Every file below a directory, by its path there."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir())
