"""Processes of a benchmark: started in a group of their own, their CPU read from /proc, ended by process id.

Contract: ``stop`` ends exactly what ``start`` started (the group, so also its children) and waits for it. Output goes
to a log file, whose end is quoted when a process does not come up.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

FIRST_PORT, LAST_PORT = 16_384, 32_767  # where a benchmark's servers listen
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

_claims: list[socket.socket] = []  # one for each port that this process was given


class NotUp(Exception):
    """A program did not start, or not do its work; the text says which and shows its log."""


class Process:
    """One started program. It does not get PYTHONPATH, so that the installed, compiled gateway is what runs."""

    def __init__(self, name: str, command: Sequence[str], workdir: Path, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.log = workdir / f"{name}.log"
        with self.log.open("wb") as log:
            self._popen = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=workdir,
                env={**{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, **(env or {})},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process id, which is also the id of its group."""
        return self._popen.pid

    @property
    def running(self) -> bool:
        """It has not ended by itself."""
        return self._popen.poll() is None

    def wait_for_port(self, port: int, timeout: float = 15.0, host: str = "127.0.0.1") -> None:
        """Return when something accepts on the port; ``NotUp`` when the process dies or time is over."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if self._popen.poll() is not None:
                raise NotUp(f"{self.name} ended with status {self._popen.returncode}:\n{self.tail()}")
            try:
                socket.create_connection((host, port), 0.2).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise NotUp(f"{self.name} does not listen on {host}:{port} after {timeout:g} s:\n{self.tail()}")

    def tail(self) -> str:
        """The end of its output."""
        return self.log.read_text(errors="replace")[-1500:].strip() or "(it printed nothing)"

    def stop(self, grace: float = 3.0) -> None:
        """SIGTERM to the group, SIGKILL after ``grace`` seconds; returns when it and its children are gone."""
        pids = tree(self.pid)
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)
            end = time.monotonic() + grace
            while time.monotonic() < end:
                self._popen.poll()
                if not any(map(_running, pids)):
                    return
                time.sleep(0.01)


def _running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on now, on any address, and that no other call has been given.

    They are below the range from which the kernel takes ports for outgoing connections (from 32768), since one of
    those to or from another loopback address could have taken a port before its server binds it. No seed decides which:
    two seeded processes would take the same ones. What is handed out stays this process's until it ends, also before
    the one that asked listens on it: a Unix socket of that name says so to the other processes of this machine.
    """
    free: list[int] = []
    for port in random.SystemRandom().sample(range(FIRST_PORT, LAST_PORT + 1), LAST_PORT - FIRST_PORT + 1):
        if len(free) == count:
            break
        claim = socket.socket(socket.AF_UNIX)
        try:
            with socket.socket() as each:
                each.bind(("0.0.0.0", port))  # bound for a moment, never listening
            claim.bind(f"\0sluicegate.port.{port}")  # an abstract name: no file, gone with this process
        except OSError:
            claim.close()
        else:
            free.append(port)
            _claims.append(claim)
    return free


def cpu_seconds(pid: int) -> float:
    """User plus system time of a process (all its threads); of one that is gone, 0."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    # Fields are counted after the command name, which may hold spaces: utime and stime are fields 14 and 15.
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def machine_seconds() -> tuple[float, float]:
    """CPU time since boot that was used on this machine, and that its host gave to others instead (steal)."""
    user, nice, system, _, _, _, _, steal = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system) / TICKS_PER_SECOND, steal / TICKS_PER_SECOND


def descendants(pid: int) -> list[int]:
    """Process ids of the children of a process, their children and so on."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in task.read_text().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *descendants(child)]
    return found


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    return [pid, *descendants(pid)]
