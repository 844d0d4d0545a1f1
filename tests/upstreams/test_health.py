"""The verdict of the health checks (pure), and one prober against scripted backends."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from gateway.certificates import ClientTls, Pem, client_context, server_context
from gateway.http.dial import Address, Tls
from gateway.testing import OK, Never, ScriptedBackend, answer
from gateway.upstreams.health import Check, HealthState, Prober

pytestmark = pytest.mark.undisturbed


def check(port=1, key="p/a", **changes):
    return Check(
        **{
            "key": key,
            "address": Address("127.0.0.1", port),
            "path": "/readyz",
            "interval": 0.005,
            "timeout": 0.03,
            "unhealthy_after": 3,
            "healthy_after": 2,
            **changes,
        }
    )


@pytest.mark.parametrize(
    ("results", "healthy"),
    [
        ("", True),
        ("--", True),
        ("---", False),
        ("--+--", True),
        ("--+---", False),
        ("---+", False),
        ("---++", True),
        ("---+-+", False),
        ("---+-++", True),
        ("---++--", True),
    ],
)
def test_verdicts(results, healthy):
    state = HealthState()
    changes = [state.seen(check(), passed=result == "+") for result in results]
    assert state.healthy is healthy
    assert sum(changes) % 2 == (not healthy)


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.002)


async def test_out_and_back():
    changes = []
    async with ScriptedBackend([answer(b"", 503)]) as backend:
        prober = Prober(lambda key, healthy: changes.append((key, healthy)))
        prober.use([check(backend.port)])
        await until(lambda: changes)
        assert prober.healthy == {"p/a": False}
        backend.scripts = [[OK]]
        await until(lambda: len(changes) == 2)
        assert changes == [("p/a", False), ("p/a", True)]
        assert backend.requests[0].startswith(b"GET /readyz HTTP/1.1")
        await prober.close()


@pytest.mark.parametrize("how", ["refused", "silent"])
async def test_what_does_not_answer_is_out(how):
    changes = []
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        async with ScriptedBackend([Never()]) as backend:
            port = sock.getsockname()[1] if how == "refused" else backend.port
            prober = Prober(lambda key, healthy: changes.append(healthy))
            prober.use([check(port, unhealthy_after=1)])
            await until(lambda: changes)
            assert changes == [False]
            await prober.close()


async def test_new_checks_keep_what_is_known():
    async with ScriptedBackend([answer(b"", 500)]) as backend:
        port = backend.port
        prober = Prober(lambda key, healthy: None)
        prober.use([check(port, unhealthy_after=1)])
        await until(lambda: not prober.healthy["p/a"])
        prober.use([check(port), check(port, key="p/b")])
        assert prober.healthy == {"p/a": False, "p/b": True}
        prober.use([check(port, key="p/b")])
        assert prober.healthy == {"p/b": True}
        await prober.close()


async def test_a_unix_socket(tmp_path):
    changes = []
    path = str(tmp_path / "s")
    prober = Prober(lambda key, healthy: changes.append(healthy))
    prober.use([check(address=Address(unix_path=path), unhealthy_after=1, healthy_after=1)])
    await until(lambda: changes == [False])
    async with ScriptedBackend([OK], unix_path=path) as backend:
        await until(lambda: changes == [False, True])
        assert b"\r\nHost: localhost\r\n" in backend.requests[0]
        await prober.close()


@pytest.mark.parametrize(("name", "healthy"), [("localhost", True), ("another.example", False)])
async def test_tls_is_as_strict_as_for_requests(name, healthy):
    files = Path(__file__).parents[1] / "config" / "certificates"
    certificate, key = (files / "long.pem").read_bytes(), (files / "key.pem").read_bytes()
    settings = ClientTls(ca=certificate)
    tls = Tls(settings, name, client_context(settings))
    verdicts = []
    async with ScriptedBackend([OK], tls=server_context(Pem(certificate, key))) as backend:
        prober = Prober(lambda key, healthy: verdicts.append(healthy))
        prober.use([check(backend.port, tls=tls, unhealthy_after=1, timeout=1.0)])
        await until(lambda: backend.requests if healthy else verdicts)
        assert verdicts == ([] if healthy else [False])
        await prober.close()
