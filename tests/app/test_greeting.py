"""What a new worker is told, and in which order."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Any

from gateway.workers import supervisor as module
from gateway.workers.control import Channel, SetEjected, SetForced, SetHealth, SetWorkers, UseSnapshot
from gateway.workers.supervisor import Supervisor, Worker

if TYPE_CHECKING:
    import pytest


class Process:
    """As far as is looked at."""

    pid = 1
    returncode = None


async def test_what_is_in_force_comes_before_what_makes_it_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[socket.socket] = []

    async def start(*_command: str, pass_fds: list[int], **_: Any) -> Process:
        ends.append(socket.socket(fileno=os.dup(pass_fds[0])))
        return Process()

    monkeypatch.setattr(module.asyncio, "create_subprocess_exec", start)
    forced = SetForced({"p/a:1": ("open", 1)})
    worker = Worker(0, [])
    supervisor = Supervisor(
        [worker], lambda: UseSnapshot(1, None, None, None), lambda: [SetHealth({}), forced, SetEjected(frozenset())]
    )
    await supervisor._spawn(worker)
    reader, writer = await asyncio.open_unix_connection(sock=ends[0])
    heard = [await Channel(reader, writer).receive() for _ in range(5)]
    assert [type(each) for each in heard] == [SetHealth, SetForced, SetEjected, UseSnapshot, SetWorkers]
    assert heard[1] == forced
    writer.close()
    assert worker.channel is not None
    worker.channel.close()
    os.close(worker.cells_fd)
