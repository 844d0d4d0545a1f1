"""Two gateways on one Valkey know of each other's workers, and share a limit fairly when it is gone."""

from __future__ import annotations

import time

import pytest

from tests.conftest import Valkey
from tests.integration.gateways import running


@pytest.fixture
def valkey_of_our_own(tmp_path):
    server = Valkey(tmp_path)
    server.start()
    yield server
    server.kill()


def eventually(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.05)


def test_local_limits_are_divided_by_the_workers_of_all_gateways(tmp_path, valkey_of_our_own):
    extra = f"store: {{url: 'unix://{valkey_of_our_own.path}', timeout: 5s, connect_timeout: 10s}}\n"
    for name in ("a", "b"):
        (tmp_path / name).mkdir()

    def members(gateway):
        return [worker["fleet"]["workers"] for worker in gateway.status()["workers"]]

    with running(tmp_path / "a", extra, workers=2) as a:
        eventually(lambda: members(a) == [2, 2])
        with running(tmp_path / "b", extra) as b:
            eventually(lambda: (members(a), members(b)) == ([3, 3], [3]))
            eventually(lambda: b"gateway_fleet_workers 3" in a.admin("/metrics")[1])
            valkey_of_our_own.kill()
            eventually(lambda: all(w["store"] == "local" for g in (a, b) for w in g.status()["workers"]))
            time.sleep(4)  # longer than a member is remembered while the store is there
            assert (members(a), members(b)) == ([3, 3], [3])
            valkey_of_our_own.start()
            eventually(lambda: all(w["store"] == "shared" for g in (a, b) for w in g.status()["workers"]))
        eventually(lambda: members(a) == [2, 2])
