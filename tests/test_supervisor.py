"""The supervisor and workers that do not answer, without a process."""

import asyncio
import contextlib
import time
from typing import Any

import pytest

from gateway.workers import supervisor
from gateway.workers.control import StartDrain, UseSnapshot
from gateway.workers.supervisor import Supervisor


class Silent:
    """A worker, its process and its channel: it answers nothing. `after` seconds from the word it has drained."""

    number, pid, restarts, generation = 0, 1, 0, 1
    sockets: tuple[Any, ...] = ()

    def __init__(self, after: float) -> None:
        self.process = self.channel = self
        self.after = after
        self.returncode: int | None = None
        self.killed = False
        self.ended = asyncio.Event()

    def send(self, message: object) -> None:
        if isinstance(message, StartDrain):
            asyncio.get_running_loop().call_later(self.after, self.end)

    def end(self, code: int = 0) -> None:
        self.returncode = code
        self.ended.set()

    def kill(self) -> None:
        self.killed = True
        self.end(-9)

    async def wait(self) -> int | None:
        await self.ended.wait()
        return self.returncode


@pytest.mark.parametrize("draining", [True, False])
async def test_a_worker_that_drains_is_not_taken_for_hung(monkeypatch: pytest.MonkeyPatch, draining: bool) -> None:
    """It reads no question any more, so each drain of more than five seconds was cut off there."""
    monkeypatch.setattr(supervisor, "HEARTBEAT", 0.005)
    monkeypatch.setattr(supervisor, "PATIENCE", 0.01)
    worker: Any = Silent(after=0.2)
    one = Supervisor([worker], lambda: None, list)  # type: ignore[arg-type,return-value]
    watcher = asyncio.create_task(one._watch())
    if draining:
        drained = asyncio.create_task(one.drain(timeout=5, idle=0))
        await asyncio.sleep(0)
        assert [about["state"] for about in await one.status(1)] == ["draining"]
        await drained
    else:
        await asyncio.wait_for(worker.wait(), 5)
    watcher.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watcher
    assert worker.killed is not draining


async def test_a_worker_that_takes_a_snapshot_is_not_taken_for_hung(monkeypatch: pytest.MonkeyPatch) -> None:
    """With thousands of routes that takes seconds, and a reload ended the workers."""
    monkeypatch.setattr(supervisor, "HEARTBEAT", 0.005)
    monkeypatch.setattr(supervisor, "PATIENCE", 0.01)
    monkeypatch.setattr(supervisor, "TAKING", 0.2)
    worker: Any = Silent(after=9)
    one = Supervisor([worker], lambda: None, list)  # type: ignore[arg-type,return-value]
    watcher = asyncio.create_task(one._watch())
    one.tell(UseSnapshot(2, None, None, None))
    told = asyncio.get_running_loop().time()
    await asyncio.wait_for(worker.wait(), 30)  # not for ever, though
    assert worker.killed
    assert asyncio.get_running_loop().time() - told >= 0.2
    watcher.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watcher


async def test_who_stood_still_itself_judges_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "HEARTBEAT", 0.0)
    monkeypatch.setattr(supervisor, "PATIENCE", 0.01)
    monkeypatch.setattr(supervisor, "LATE", 0.05)
    worker: Any = Silent(after=9)
    one = Supervisor([worker], lambda: None, list)  # type: ignore[arg-type,return-value]
    send = worker.send

    def stand_still(message: object) -> None:
        send(message)
        time.sleep(0.1)

    worker.send = stand_still
    watcher = asyncio.create_task(one._watch())
    await asyncio.sleep(0.5)
    assert not worker.killed
    worker.send = send
    await asyncio.wait_for(worker.wait(), 30)
    watcher.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watcher
