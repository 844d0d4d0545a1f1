"""Limits of real gateways over a real store: places, leases, settled costs, and a store that goes and comes back."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import struct
import threading
import time

import pytest
import redis

from tests.conftest import Valkey
from tests.integration.gateways import running
from tests.integration.test_fleet import eventually


@pytest.fixture
def server(tmp_path):
    server = Valkey(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def fleet(tmp_path, server):
    """Starts gateways that share one store; `limit` is what every request must pass."""
    with contextlib.ExitStack() as stack:

        def start(name, limit):
            (tmp_path / name).mkdir()
            return stack.enter_context(running(tmp_path / name, shared(server), limit=limit))

        yield start


def shared(server):
    return f"store: {{url: 'unix://{server.path}', key_prefix: t, timeout: 5s, connect_timeout: 10s}}\n"


def store(server):
    return redis.Redis(unix_socket_path=server.path)


def told(gateway, path="/", body=None, headers=None):
    status, _, fields = gateway.ask_all(path, body, headers)
    return status, fields


def in_background(gateway, count):
    results = []

    def ask():
        with contextlib.suppress(OSError, http.client.HTTPException):  # its worker was killed
            results.append(gateway.ask()[0])

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, results


def test_places_are_shared_and_free_again_after_the_answer_and_after_a_worker_died(fleet, server):
    a, b = (fleet(name, "{key: global, concurrent: 3}") for name in ("a", "b"))
    a.backend.hold.clear()
    threads, results = in_background(a, 3)
    client = store(server)
    eventually(lambda: client.zcard("t:per-client:{*}") == 3)
    status, fields = told(b)
    assert (status, fields["ratelimit"], fields["retry-after"]) == (429, '"per-client";r=0', "1")
    assert fields["ratelimit-policy"] == '"per-client";q=3;qu="concurrent-requests"'
    a.backend.hold.set()
    for thread in threads:
        thread.join()
    assert results == [200, 200, 200]
    eventually(lambda: client.zcard("t:per-client:{*}") == 0)
    b.backend.hold.clear()
    threads, _ = in_background(b, 2)
    eventually(lambda: client.zcard("t:per-client:{*}") == 2)
    os.kill(b.status()["workers"][0]["pid"], signal.SIGKILL)
    b.backend.hold.set()
    lives = [end - time.time() * 1e6 for _, end in client.zrange("t:per-client:{*}", 0, -1, withscores=True)]
    assert all(life < 7e6 for life in lives)  # the deadline of the requests and a second
    eventually(lambda: told(a)[1]["ratelimit"] == '"per-client";r=2', 12)
    for thread in threads:
        thread.join()


def test_places_given_back_while_the_store_stood_still_are_free_when_it_goes_on(server, tmp_path):
    line = f"store: {{url: 'unix://{server.path}', key_prefix: t, timeout: 100ms, connect_timeout: 500ms}}\n"
    with running(tmp_path, line, limit="{key: global, concurrent: 3}") as gateway:
        gateway.backend.hold.clear()
        threads, results = in_background(gateway, 3)
        client = store(server)
        eventually(lambda: client.zcard("t:per-client:{*}") == 3)
        os.kill(server.process.pid, signal.SIGSTOP)
        try:
            eventually(lambda: "mode=local" in told(gateway)[1].get("degraded", ""))
            time.sleep(0.8)  # the connection is given up: nothing waits in it for the store to go on
            gateway.backend.hold.set()
            for thread in threads:
                thread.join()
            assert results == [200, 200, 200]
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
        eventually(lambda: client.zcard("t:per-client:{*}") == 0)
        eventually(lambda: told(gateway)[1]["ratelimit"] == '"per-client";r=2')


def test_a_busy_key_is_leased_and_what_was_not_used_comes_back(fleet, server):
    gateway = fleet("a", "{key: global, rate: 1/h, burst: 10000, mode: leased}")
    for _ in range(300):
        status, fields = told(gateway)
        assert status == 200
    eventually(lambda: b"\ngateway_store_calls_total " in gateway.admin("/metrics")[1])  # published four times a second
    metrics = gateway.admin("/metrics")[1]
    assert b'store="leased",result="allowed"' in metrics
    calls = next(line for line in metrics.splitlines() if line.startswith(b"gateway_store_calls_total "))
    assert int(calls.split()[1]) < 150
    left = int(fields["ratelimit"].partition("r=")[2].partition(";")[0])
    assert 9_690 <= left <= 9_700
    eventually(lambda: b"\ngateway_leased_keys 0\n" in gateway.admin("/metrics")[1])
    time.sleep(0.1)
    assert told(gateway)[1]["ratelimit"].startswith('"per-client";r=9699;')


def test_a_drain_gives_leases_back(server, tmp_path):
    limit = "{key: global, rate: 1/h, burst: 10000, mode: leased}"
    with running(tmp_path, shared(server), limit=limit) as gateway:
        for _ in range(100):
            assert gateway.ask()[0] == 200
        gateway.child.stop(10)
    level, _ = struct.unpack("<dd", store(server).get("t:per-client:{*}"))
    assert level == pytest.approx(9_900, abs=0.5)


def test_costs_by_body_and_what_was_never_sent_costs_nothing(fleet, server):
    gateway = fleet("a", "{key: global, rate: 1/h, burst: 100, cost: {body: 100B}}")
    status, fields = told(gateway, body=b"x" * 950)
    assert (status, fields["ratelimit"]) == (200, '"per-client";r=9000;t=36000')
    assert fields["ratelimit-policy"] == '"per-client";q=10000;qu="content-bytes";w=360000'


def test_what_no_backend_saw_costs_nothing(fleet, server):
    gateway = fleet("a", "{key: global, rate: 1/h, burst: 100, cost: 40}")
    gateway.backend.close()
    assert [told(gateway)[0] for _ in range(4)] == [503] * 4
    eventually(lambda: struct.unpack("<dd", store(server).get("t:per-client:{*}"))[0] == pytest.approx(100, abs=0.1))


def test_a_store_that_comes_back_empty_hands_out_no_second_burst(fleet, server):
    gateway = fleet("a", "{key: global, rate: 1/h, burst: 20}")
    assert [told(gateway)[0] for _ in range(15)] == [200] * 15
    server.kill()
    eventually(lambda: gateway.status()["workers"][0]["store"] == "local")
    status, fields = told(gateway)
    assert (status, fields["degraded"]) == (200, "limits;mode=local")
    server.start()
    eventually(lambda: gateway.status()["workers"][0]["store"] == "shared")
    assert [told(gateway)[0] for _ in range(6)] == [200] * 4 + [429] * 2
    assert "degraded" not in told(gateway)[1]
