"""The real gateway before backends of slots, with a configuration of the benchmark's own."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from demo.layout import GATEWAY
from loadtests.peers.processes import NotUp, Process, free_ports
from loadtests.peers.slots import Setting, Slots

#: `%(pool)s` and `%(route)s` are lines of YAML at the depth of the pool and of the route.
CONFIG = """\
version: 1
listen: 127.0.0.1:%(port)d
workers: %(workers)d
admin: {listen: "127.0.0.1:%(admin)d"}
pools:
  models:
    backends: [%(backends)s]
%(pool)s
routes:
  - name: all
    match: {path: "/*"}
    pool: models
%(route)s
"""


@dataclass(frozen=True, slots=True)
class Stand:
    """What runs, and where it listens."""

    backends: list[Slots]
    port: int
    admin: int

    def metric(self, name: str) -> float:
        """The sum of the gateway's series whose name and labels begin so."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


@contextmanager
def standing(
    backends: int, *, pool: str = "", route: str = "", workers: int = 1, **settings: Setting
) -> Iterator[Stand]:
    """Everything up; `NotUp` says what is missing. `settings` are the backends'."""
    with ExitStack() as stack:
        workdir = Path(stack.enter_context(TemporaryDirectory(prefix="slots-")))
        servers = [stack.enter_context(Slots(workdir, f"backend-{n}", 0, **settings)) for n in range(backends)]
        port, admin = free_ports(2)
        path = workdir / "gateway.yaml"
        path.write_text(
            CONFIG
            % {
                "port": port,
                "admin": admin,
                "workers": workers,
                "backends": ", ".join(f'{{url: "http://{each.endpoint}"}}' for each in servers),
                "pool": _indented(pool),
                "route": _indented(route),
            }
        )
        gateway = Process("gateway", [str(GATEWAY), "run", "-c", str(path)], workdir)
        stack.callback(gateway.stop)
        end = time.monotonic() + 20
        while not _ready(admin):
            if time.monotonic() > end or not gateway.running:
                raise NotUp(f"the gateway is not ready:\n{gateway.tail()}")
            time.sleep(0.05)
        yield Stand(servers, port, admin)


def _ready(admin: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=1):
            return True
    except OSError:
        return False
