"""Keeps N worker processes alive and tells them all the same things.

It knows nothing of configuration: what a worker is told first comes from `welcome`. Invariants: a worker that dies
is replaced (after a pause that grows while it keeps dying); a worker whose supervisor dies stops by itself; a message
is put to every live worker in the same order.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import socket
from asyncio.subprocess import Process
from collections.abc import Callable, Sequence
from typing import Any, Final

from gateway.errors import StartError
from gateway.processes import die_with_parent, own_module
from gateway.telemetry.cells import Cells
from gateway.workers.control import (
    AskStatus,
    Channel,
    InForce,
    Message,
    SetWorkers,
    StartDrain,
    TellSpans,
    TellStatus,
    UseSnapshot,
)

log = logging.getLogger(__name__)

MODULE: Final = "gateway.app.worker"
PAUSES: Final = (0.05, 0.2, 1.0, 5.0)  # seconds before the n-th restart in a row
HEARTBEAT: Final = 1.0  # seconds between two questions whether the workers still answer
PATIENCE: Final = 5.0  # seconds a worker has for its answer before it is taken for hung and replaced
TAKING: Final = 30.0  # seconds in which it may be too busy to answer with a snapshot that it was told to use
LATE: Final = 0.5  # seconds by which we wake up too late to judge others
ENDING: Final = 4.0  # seconds a worker has beyond its drain for the store, the access log (2 s) and the last spans
LAST_WORDS: Final = 0.5  # seconds to read what the workers said before they ended
STEADY: Final = 10.0  # seconds a worker must live for its past to be forgiven


class Worker:
    """One place in the fleet: its sockets and its cells stay, its process comes and goes."""

    def __init__(self, number: int, sockets: Sequence[socket.socket]) -> None:
        self.number = number
        self.sockets = tuple(sockets)
        self.cells_fd = Cells.create(f"sluicegate-cells-{number}")
        self.cells = Cells(self.cells_fd)
        self.bell = os.eventfd(0, os.EFD_NONBLOCK)  # wakes it when another worker leaves something to it
        self.process: Process | None = None
        self.channel: Channel | None = None
        self.generation = 0
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None else None


class Supervisor:
    """`first()` makes the first messages of a new worker, what is in force while it serves its first request;
    `welcome()` what makes it serve; `spans` takes their spans. `ended` is told a worker's number when its process has
    ended; `shared` is memory of all workers.
    """

    def __init__(
        self,
        workers: Sequence[Worker],
        welcome: Callable[[], UseSnapshot],
        first: Callable[[], list[Message]],
        spans: Callable[[Any], None] = lambda _: None,
        ended: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.workers = tuple(workers)
        self._welcome = welcome
        self._first = first
        self._spans = spans
        self._ended = ended
        self._shared_fd = Cells.create("sluicegate-shared")
        self.shared = Cells(self._shared_fd)
        self._keepers: list[asyncio.Task[None]] = []
        self._watcher: asyncio.Task[None] | None = None
        self._stopping = False
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._changed = asyncio.Condition()
        self._refusal = ""
        self._newest = (0, 0.0)  # the generation that all were told to use last, and when

    # -- starting -----------------------------------------------------------------------------------------------

    async def start(self, timeout: float = 60.0) -> None:
        """Starts all workers and waits until each has its snapshot in force."""
        self._keepers = [asyncio.create_task(self._keep(worker)) for worker in self.workers]
        self._watcher = asyncio.create_task(self._watch())
        try:
            await self.in_force(self._welcome().generation, timeout)
        except TimeoutError:
            raise StartError("the workers did not become ready; their log says why") from None

    async def _keep(self, worker: Worker) -> None:
        loop = asyncio.get_running_loop()
        falls = 0
        pause = 0.0
        while True:
            await asyncio.sleep(pause)
            if self._stopping:
                return
            born = loop.time()
            await self._spawn(worker)
            assert worker.channel is not None
            assert worker.process is not None
            await self._listen(worker, worker.channel)
            code = await worker.process.wait()
            worker.channel.close()
            worker.channel = None
            worker.generation = 0
            self._ended(worker.number)
            if not self._stopping:
                falls = 0 if loop.time() - born > STEADY else falls + 1
                pause = PAUSES[min(falls, len(PAUSES)) - 1] if falls else 0.0
                log.error(
                    "worker %d (pid %d) ended with status %s; a new one starts in %g s",
                    worker.number,
                    worker.pid,
                    code,
                    pause,
                )
                worker.restarts += 1
                self._tell_count()

    async def _watch(self) -> None:
        """A worker that hangs is as bad as one that died, and nobody else would notice: its socket still accepts.

        One that takes a snapshot does not hang; and after we ourselves stood still, nothing is known of the others.
        """
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(HEARTBEAT)
            began = loop.time()
            asked = [(worker, worker.process) for worker in self.workers if worker.generation]
            states = {about["worker"]: about["state"] for about in await self.status(PATIENCE)}
            if loop.time() - began > PATIENCE + LATE:
                continue
            generation, told = self._newest
            due = generation if loop.time() - told < TAKING else 0
            for worker, process in asked:
                hangs = states[worker.number] == "not answering" and worker.generation >= due
                if hangs and process is not None and process.returncode is None:
                    log.error("worker %d (pid %d) hangs: killed", worker.number, process.pid)
                    process.kill()

    async def _spawn(self, worker: Worker) -> None:
        ours, theirs = socket.socketpair()
        bells = [each.bell for each in self.workers]
        fds = [theirs.fileno(), worker.cells_fd, self._shared_fd, *bells, *(sock.fileno() for sock in worker.sockets)]
        command, env = own_module(MODULE)
        worker.process = await asyncio.create_subprocess_exec(
            *command,
            str(worker.number),
            str(len(self.workers)),
            *map(str, fds),
            pass_fds=fds,
            preexec_fn=die_with_parent,
            env=env,
        )
        theirs.close()
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=1 << 20)
        worker.channel = Channel(reader, writer)
        for message in self._first():
            worker.channel.send(message)
        worker.channel.send(self._welcome())
        self._tell_count()

    async def _listen(self, worker: Worker, channel: Channel) -> None:
        while (message := await channel.receive()) is not None:
            if isinstance(message, InForce):
                if message.error:
                    log.error("worker %d refused generation %d: %s", worker.number, message.generation, message.error)
                    self._refusal = message.error
                else:
                    worker.generation = message.generation
                async with self._changed:
                    self._changed.notify_all()
            elif isinstance(message, TellStatus):
                future = self._asked.get(message.number)
                if future is not None and not future.done():
                    future.set_result(message.status)
            elif isinstance(message, TellSpans):
                self._spans(message.spans)

    def _tell_count(self) -> None:
        self.tell(SetWorkers(max(1, sum(worker.channel is not None for worker in self.workers))))

    # -- talking ------------------------------------------------------------------------------------------------

    def tell(self, message: Message) -> None:
        """To every live worker."""
        if isinstance(message, UseSnapshot):
            self._newest = (message.generation, asyncio.get_running_loop().time())
        for worker in self.workers:
            if worker.channel is not None:
                worker.channel.send(message)

    async def in_force(self, generation: int, timeout: float) -> None:
        """Waits until every worker uses `generation`. Raises TimeoutError, or StartError when a worker refuses."""
        self._refusal = ""
        async with asyncio.timeout(timeout), self._changed:
            while not all(worker.generation >= generation for worker in self.workers):
                await self._changed.wait()
                if self._refusal:
                    raise StartError(self._refusal)

    async def status(self, timeout: float = 1.0) -> list[dict[str, Any]]:
        """Every worker's own account; one that does not answer in time says so."""

        async def ask(worker: Worker) -> dict[str, Any]:
            about: dict[str, Any] = {"worker": worker.number, "pid": worker.pid, "restarts": worker.restarts}
            if worker.channel is None:
                return {**about, "state": "starting"}
            if self._stopping:  # it hears nothing more, and has until `drain` ends it
                return {**about, "state": "draining"}
            number = next(self._numbers)
            future = self._asked[number] = asyncio.get_running_loop().create_future()
            worker.channel.send(AskStatus(number))
            try:
                async with asyncio.timeout(timeout):
                    return {**about, "state": "running", **await future}
            except TimeoutError:
                return {**about, "state": "not answering"}
            finally:
                del self._asked[number]

        return list(await asyncio.gather(*map(ask, self.workers)))

    # -- stopping -----------------------------------------------------------------------------------------------

    async def drain(self, timeout: float, idle: float) -> None:
        """Lets the workers finish; what is left `ENDING` after `timeout` is killed."""
        self._stopping = True
        for worker in self.workers:
            for sock in worker.sockets:
                sock.close()  # while we hold it the kernel would go on completing handshakes that nobody accepts
        self.tell(StartDrain(timeout, idle))
        await self._wait(timeout + ENDING)

    async def kill(self) -> None:
        """Ends every worker at once."""
        self._stopping = True
        await self._wait(0.0)

    async def _wait(self, timeout: float) -> None:
        running = [worker.process for worker in self.workers if worker.process is not None]
        waits = [asyncio.ensure_future(process.wait()) for process in running]
        if waits:
            await asyncio.wait(waits, timeout=timeout)
        for process in running:
            if process.returncode is None:
                log.warning("worker pid %d is cut off", process.pid)
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGKILL)
        if self._keepers:
            await asyncio.wait(self._keepers, timeout=LAST_WORDS)
        tasks = [*self._keepers, *([self._watcher] if self._watcher is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *waits, return_exceptions=True)
