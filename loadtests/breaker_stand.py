"""A gateway before four backends that can be made to misbehave, and what its admin API says of their breakers."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

from demo.layout import GATEWAY
from loadtests.peers.processes import NotUp, Process, free_ports
from loadtests.peers.slots import Slots

BACKENDS = 4
SERVICE_US = 20_000

#: Times are short so that a run is; ratios are those of a real configuration.
BREAKER = (
    "{failures: 5, open_for: 1s, open_max: 4s, jitter: 0, probes: 1, slow_after: 100ms, error_rate: 0.3, "
    "min_calls: 20, window_calls: 50}"
)

CONFIG = """\
version: 1
listen: 127.0.0.1:%(port)d
workers: 1
admin: {listen: "127.0.0.1:%(admin)d"}
store: {url: "%(store)s"}
pools:
  models:
    backends: [%(backends)s]
    balance: least-request
    breaker: %(breaker)s
%(more)s
routes:
  - name: all
    match: {path: "/*"}
    pool: models
    timeout: 3s
    retry: {attempts: 3, on: [connect, reset, 429, 500, 502, 503], replayable: true, per_try: 250ms, backoff: 1ms}
"""


class Gateway:
    """One gateway in front of backends on given ports."""

    def __init__(
        self, workdir: Path, ports: list[int], *, breaker: str = BREAKER, more: str = "", store: str = "embedded"
    ) -> None:
        self.port, self.admin = free_ports(2)
        self.names = [f"127.0.0.1:{port}" for port in ports]
        self._path = workdir / f"gateway-{self.port}.yaml"
        backends = ", ".join(f'{{url: "http://{name}"}}' for name in self.names)
        self._path.write_text(
            CONFIG
            % {
                "port": self.port,
                "admin": self.admin,
                "store": store,
                "backends": backends,
                "breaker": breaker,
                "more": "\n".join(f"    {line}" for line in more.splitlines()),
            }
        )
        self._process = Process(f"gateway-{self.port}", [str(GATEWAY), "run", "-c", str(self._path)], workdir)
        end = time.monotonic() + 20
        while not self._ready():
            if time.monotonic() > end or not self._process.running:
                raise NotUp(f"the gateway is not ready:\n{self._process.tail()}")
            time.sleep(0.05)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/readyz", timeout=1):
                return True
        except OSError:
            return False

    def ask_admin(self, path: str, body: Any = None) -> Any:
        """The JSON answer of the admin API."""
        content = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", content, timeout=5) as answer:
            return json.loads(answer.read())

    def breaker(self, index: int) -> dict[str, Any]:
        """One backend as the only worker tells of it."""
        [worker] = self.ask_admin("/status")["workers"]
        found: dict[str, Any] = worker["backends"][index]
        return found

    def transitions(self, index: int, since_ns: int = 0) -> list[tuple[float, str]]:
        """Seconds since `since_ns` (monotonic) and what moved the breaker; the last sixteen."""
        history = self.breaker(index)["history"]
        return [((each["at_ns"] - since_ns) / 1e9, each["event"]) for each in history if each["at_ns"] >= since_ns]

    def metrics(self) -> dict[str, float]:
        """Series with labels as Prometheus text has them."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, _, value in (x.rpartition(" ") for x in lines if x and x[0] != "#")}

    def command(self, *arguments: str) -> list[str]:
        """A command line of `gateway breaker` for this gateway."""
        return [str(GATEWAY), "breaker", *arguments, "-c", str(self._path)]

    def stop(self) -> None:
        self._process.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


@contextmanager
def standing(breaker: str = BREAKER, more: str = "") -> Iterator[tuple[Gateway, list[Slots]]]:
    """Four backends and a gateway before them."""
    with TemporaryDirectory(prefix="breakers-") as folder:
        workdir = Path(folder)
        backends: list[Slots] = []
        try:
            for number in range(BACKENDS):
                backends.append(Slots(workdir, f"backend-{number}", slots=8, service_us=SERVICE_US))
            with Gateway(workdir, [each.endpoint.port for each in backends], breaker=breaker, more=more) as gateway:
                yield gateway, backends
        finally:
            for each in backends:
                each.stop()
