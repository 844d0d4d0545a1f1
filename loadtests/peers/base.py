"""What a benchmark asks of a peer, and what it gives one.

Contract: ``available`` only looks; ``start`` returns a loopback port that forwards every request to the origin with
one worker; ``roles`` names the processes whose CPU counts, those of the role ``proxy`` as the peer's own and the
others beside it; ``stop`` ends everything that ``start`` began, also after a ``start`` that failed halfway.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from loadtests.peers.processes import Process, tree

# Every client's bucket is filled faster than any proxy here can ask: the limiter works and refuses nobody.
RATE = 1_000_000
BURST = 10_000_000


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A loopback port that is listening: the origin, or the store (Valkey or Redis)."""

    port: int
    host: str = "127.0.0.1"

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Peer(ABC):
    """One proxy in the comparison."""

    name: ClassVar[str]
    does: ClassVar[str]
    """What it does per request, in a few words."""
    limits: ClassVar[bool] = False
    """Asks the store about every request."""
    origin: ClassVar[str] = "nginx"
    """What it is put in front of: nginx, or the Go echo that also speaks the link."""

    def __init__(self) -> None:
        self._processes: list[Process] = []

    @abstractmethod
    def available(self) -> str | None:
        """Why it cannot run here, or None."""

    @abstractmethod
    def start(self, origin: Endpoint, store: Endpoint, workdir: Path) -> int:
        """Start it; the port it serves on. ``NotUp`` if it does not come up."""

    def roles(self) -> dict[str, list[int]]:
        """Process ids by role; by default every process and child is ``proxy``."""
        return {"proxy": [pid for process in self._processes for pid in tree(process.pid)]}

    def run(self, process: Process, port: int) -> Process:
        """Keep a started process and wait until it listens."""
        self._processes.append(process)
        process.wait_for_port(port)
        return process

    def stop(self) -> None:
        """End its processes, the last started first."""
        while self._processes:
            self._processes.pop().stop()
