"""A backend that behaves like a model server and can be made to misbehave while it runs (`slotserver/main.go`).

with Slots(workdir, slots=4, service_us=20_000) as backend:
    backend.set(stall=True)
    assert backend.stats().started == 0
"""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from loadtests.peers.base import Endpoint
from loadtests.peers.processes import NotUp, Process, free_ports
from loadtests.peers.programs import find_program

Setting = int | float | bool


class Stats(NamedTuple):
    """What became of every request since the process began; see `Stats` in slotserver/main.go."""

    received: int
    started: int
    finished: int
    wasted: int
    abandoned: int
    refused: int
    errors: int
    running: int
    waiting: int
    late: int


class Slots:
    """One such backend on a port of its own, or on `port`. `settings` are the first ones."""

    def __init__(self, workdir: Path, name: str = "slots", port: int = 0, **settings: Setting) -> None:
        program = find_program("slotserver")
        if program is None:
            raise NotUp("slotserver is not built: run `make bench-peers`")
        self.name = name
        self.endpoint = Endpoint(port or free_ports(1)[0])
        self._workdir = workdir
        self._command = [program, "-listen", str(self.endpoint), "-name", name, "-set", json.dumps(settings)]
        self.process: Process
        self.start()

    def start(self) -> None:
        """Starts it, again after `kill`, with its first settings and empty counts."""
        self.process = Process(self.name, self._command, self._workdir)
        self.process.wait_for_port(self.endpoint.port)

    def set(self, **settings: Setting) -> None:
        """Changes settings; those not named stay."""
        self._ask("PUT", "/-/set", json.dumps(settings).encode())

    def stats(self) -> Stats:
        """The counts as they stand."""
        return Stats(**json.loads(self._ask("GET", "/-/stats", None)))

    def _ask(self, method: str, path: str, body: bytes | None) -> bytes:
        request = urllib.request.Request(f"http://{self.endpoint}{path}", body, method=method)
        with urllib.request.urlopen(request, timeout=5) as answer:
            content: bytes = answer.read()
            return content

    def kill(self) -> None:
        """SIGKILL: connections are refused from now on."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.stop()

    def pause(self) -> None:
        """SIGSTOP: connections are accepted by the kernel and nothing ever answers."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Ends `pause`."""
        os.kill(self.process.pid, signal.SIGCONT)

    def stop(self) -> None:
        """Ends it, paused or not."""
        if self.process.running:
            self.resume()
        self.process.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
