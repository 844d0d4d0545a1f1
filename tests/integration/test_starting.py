"""What a gateway is told before it has begun: signals and the admin API while it still starts."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from demo.layout import GATEWAY
from gateway.app import gateway as app
from gateway.config.load import load
from gateway.store.embedded import EmbeddedStore
from loadtests.peers.processes import free_ports

CONFIG = """\
version: 1
listen: 127.0.0.1:{}
workers: 1
admin: {{listen: "127.0.0.1:{}"}}
pools: {{p: {{backends: [{{url: "http://127.0.0.1:1", name: b}}]}}}}
routes: [{{name: all, match: {{path: "/*"}}, pool: p}}]
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.yaml"
    path.write_text(CONFIG.format(*free_ports(2)))
    return path


def starting(config: Path, mask: str, number: signal.Signals) -> subprocess.Popen[str]:
    """A gateway so far in its start that its `mask` of signals has `number`: hundreds of routes are still to be read."""
    many = "".join(f"  - {{name: r{n}, match: {{path: /r{n}}}, pool: p}}\n" for n in range(500))
    config.write_text(
        config.read_text().replace("routes: [", "routes:\n" + many + "  - ").replace("pool: p}]", "pool: p}")
    )
    process = subprocess.Popen([str(GATEWAY), "run", "-c", str(config)], stderr=subprocess.PIPE, text=True)
    while True:
        assert process.poll() is None
        status = Path(f"/proc/{process.pid}/status").read_text()
        bits = int(next(line for line in status.splitlines() if line.startswith(f"{mask}:")).split()[1], 16)
        if bits >> (number - 1) & 1:
            return process
        time.sleep(0.001)


def test_a_reload_that_is_asked_for_too_early_comes_later(config: Path) -> None:
    with starting(config, "SigBlk", signal.SIGHUP) as process:
        process.send_signal(signal.SIGHUP)
        assert process.stderr is not None
        assert any("generation 2 is in force" in line for line in process.stderr)
        process.terminate()
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == 0


def test_a_stop_that_is_asked_for_too_early_is_one(config: Path) -> None:
    with starting(config, "SigCgt", signal.SIGTERM) as process:
        process.terminate()
        assert "Traceback" not in process.communicate(timeout=60)[1]
    assert process.returncode == 0


def test_it_serves_with_closed_standard_streams(config: Path) -> None:
    command = ["sh", "-c", 'exec "$0" run -c "$1" 0<&- 1>&-', str(GATEWAY), str(config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any("gateway: serving on" in line for line in process.stderr)
        process.terminate()
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == 0


@asynccontextmanager
async def held_up(monkeypatch: pytest.MonkeyPatch, config: Path) -> AsyncIterator[Any]:
    """A gateway whose admin API answers and whose store has not started yet; and what makes the store start."""
    reached, go_on = asyncio.Event(), asyncio.Event()
    start = EmbeddedStore.start

    async def later(store: EmbeddedStore) -> None:
        reached.set()
        await go_on.wait()
        await start(store)

    monkeypatch.setattr(EmbeddedStore, "start", later)
    ready = asyncio.Event()
    one = app.Gateway(config, load(config), lambda _: ready.set())
    running = asyncio.create_task(one.run())
    await reached.wait()
    try:
        yield one, go_on, ready
    finally:
        one._stop.set()
        await running


async def test_the_admin_api_answers_for_a_gateway_that_starts(monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    async with held_up(monkeypatch, config) as (one, go_on, ready):
        assert one.not_ready()
        assert (await one.status())["workers"] == [{"worker": 0, "pid": None, "restarts": 0, "state": "starting"}]
        assert "gateway_config_generation 1" in one.metrics()
        assert await one.force_breaker("p", "b", "open", None) != ("", [])
        reloading = asyncio.create_task(one.reload())
        await asyncio.sleep(0.05)
        go_on.set()
        await ready.wait()
        outcome = await reloading
        assert (outcome.applied, outcome.generation) == (True, 2)
        (breaker,) = await one.breakers()
        assert breaker["forced"] == "open"


async def test_a_stop_while_it_starts_is_heeded_and_a_second_one_harmless(
    monkeypatch: pytest.MonkeyPatch, config: Path
) -> None:
    async with held_up(monkeypatch, config) as (_, go_on, ready):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.05)
        go_on.set()
    assert not ready.is_set()
