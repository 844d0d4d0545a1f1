"""This worker's line to the store: made, watched, and made again.

The store has a breaker of its own, which is simply "is there a working connection": one overdue reply opens it, and
from then on nobody waits. It may be that the store was late, or that this worker or its host were: so the connection
is kept, and used again when PINGs on it are answered in time (more of them the more often that happened lately). When
nothing at all comes for `connect_timeout` it is dropped, until a new one has answered PING and loaded the scripts
within its deadlines. Attempts to reconnect back off with jitter. Nothing here raises for a store that is away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.errors import StoreError
from gateway.store.address import StoreAddress
from gateway.store.connect import ask, connect
from gateway.store.connection import StoreConnection
from gateway.store.sentinel import find_master

log = logging.getLogger(__name__)

REASONS: Final = 8  # why a store is away that are logged until it is there again
STEADY: Final = 5.0  # seconds a connection must live (or keep its deadlines) for earlier failures to be forgiven
PAUSE: Final = 0.005  # seconds between two PINGs to a store that was late
MOST_PINGS: Final = 8  # that must be answered in time, however often it was late


@dataclass(frozen=True, slots=True)
class StoreTimes:
    """Seconds."""

    deadline: float = 0.025
    connect_timeout: float = 0.25
    reconnect_min: float = 0.05
    reconnect_max: float = 0.5


class StoreLink:
    """`connection` is None while the store is away; `scripts` are loaded on every new connection, after `commands`.

    `marker` is a key that lasts as long as the store's memory: `forgot` says after a loss whether it came back with
    another one, that is, without what it knew. `purpose` says in the log what is to be had over this line;
    `turned` is told of each connection and each loss.
    """

    def __init__(
        self,
        address: StoreAddress,
        times: StoreTimes,
        scripts: Sequence[bytes] = (),
        *,
        commands: Sequence[tuple[bytes, ...]] = (),
        marker: bytes = b"",
        purpose: str = "shared limits",
        pushed: Callable[[Any], None] | None = None,
        turned: Callable[[StoreConnection | None], None] | None = None,
    ) -> None:
        self.connection: StoreConnection | None = None
        self.losses = 0
        self.doubts = 0  # how often the store was late and went on as if nothing were
        self.forgot = False
        # Asked for once: each `get_running_loop` makes a system call (getpid) in Python 3.11.
        self.loop = asyncio.get_running_loop()
        self._address = address
        self._times = times
        self._commands = (*commands, *((b"SCRIPT", b"LOAD", script) for script in scripts))
        self._marker = marker
        self._era: bytes | None = None
        self._turn = -1  # of the seeds
        self._purpose = purpose
        self._pushed = pushed
        self._turned = turned
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._doubting: asyncio.Task[None] | None = None
        self._doubted: StoreConnection | None = None
        self._doubt_ended = -STEADY
        self._pings = 1

    @property
    def open(self) -> StoreConnection | None:
        """The connection, or one in doubt: good enough for what nobody waits for."""
        return self.connection if self.connection is not None else self._doubted

    def start(self) -> None:
        """Begins connecting in the background."""
        self._task = self.loop.create_task(self._keep_connected())

    async def ready(self, timeout: float) -> bool:
        """Waits up to `timeout` seconds for the first connection."""
        end = self.loop.time() + timeout
        while self.connection is None and self.loop.time() < end:
            await asyncio.sleep(0.005)
        return self.connection is not None

    async def close(self) -> None:
        """Drops the connection; what waits on it is failed."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._doubting is not None:
            self._doubting.cancel()
        connection, self.connection = self.connection or self._doubted, None
        if connection is not None:
            connection.drop(StoreError("closing"))

    async def _keep_connected(self) -> None:
        wait = 0.0
        told: set[str] = set()  # why it is away, as far as it was said since it was last there
        while True:
            try:
                connection = await self._connect()
            except StoreError as error:
                if (why := str(error)) not in told and len(told) < REASONS:
                    log.warning("store is away, without %s: %s", self._purpose, why)
                    told.add(why)
                wait = self._longer(wait)
                await asyncio.sleep(random.uniform(self._times.reconnect_min / 2, wait))  # noqa: S311 - jitter
                continue
            self._lost.clear()
            self.connection = connection
            log.info("store connected for %s: %s", self._purpose, self._address)
            if self._turned is not None:
                self._turned(connection)
            up_since = self.loop.time()
            await self._lost.wait()
            told.clear()
            # A store that answers PING and then hangs again must not cost a deadline on every reconnect.
            wait = 0.0 if self.loop.time() - up_since > STEADY else self._longer(wait)
            await asyncio.sleep(max(wait, self._times.reconnect_min))

    def _longer(self, wait: float) -> float:
        return min(self._times.reconnect_max, max(self._times.reconnect_min, wait * 2))

    async def _connect(self) -> StoreConnection:
        times = self._times
        address = await self._locate()
        connection = await connect(address, times.connect_timeout, self._make)
        try:
            if address.db:
                await ask(address, connection, "SELECT", address.db)
            if self._address.sentinels and (await ask(address, connection, "ROLE"))[0] != b"master":
                raise StoreError(f"{address}: it is not the master")
            for command in self._commands:
                await ask(address, connection, *command)
            if self._marker:
                await ask(address, connection, "SETNX", self._marker, secrets.token_hex(8))
                era = await ask(address, connection, "GET", self._marker)
                self.forgot = self._era is not None and era != self._era
                self._era = era
            if connection.lost:
                raise StoreError(f"{address}: the connection closed as soon as it was made")
        except BaseException:  # a cancel, too, leaves nothing open
            connection.drop(StoreError("set-up failed"))
            raise
        return connection

    async def _locate(self) -> StoreAddress:
        """The one server to connect to."""
        address = self._address
        if address.sentinels:
            return await find_master(address, self._times.connect_timeout)
        if address.seeds:
            self._turn = (self._turn + 1) % len(address.seeds)
            return address.at(*address.seeds[self._turn])
        return address

    def _make(self) -> StoreConnection:
        return StoreConnection(self._times.deadline, self._on_lost, self._pushed, self._on_late)

    # -- late, or lost ------------------------------------------------------------------------------------------

    def _on_late(self, connection: StoreConnection) -> bool:
        """A reply is overdue. Whether the connection may yet be used."""
        if connection is self._doubted:
            return True  # a PING, and more will follow
        if connection is not self.connection:
            return False
        self._doubted, self.connection = connection, None
        self._pings = min(2 * self._pings, MOST_PINGS) if self.loop.time() - self._doubt_ended < STEADY else 1
        self._doubting = self.loop.create_task(self._doubt(connection))
        if self._turned is not None:
            self._turned(None)
        return True

    async def _doubt(self, connection: StoreConnection) -> None:
        """Until it answers in time again, or not at all. Nobody waits for it meanwhile."""
        timely, heard, silent = 0, connection.answered, 0
        # By PINGs and not by the clock: each gives the loop a round to read, however late the loop itself is.
        patience = math.ceil(self._times.connect_timeout / self._times.deadline)
        began = self.loop.time()
        told = False
        while timely < self._pings:
            try:
                await connection.call("PING")
                timely += 1
            except StoreError:
                timely = 0
            silent = silent + 1 if connection.answered == heard else 0
            heard = connection.answered
            if silent >= patience:
                connection.drop(StoreError("it says nothing any more"))
            if connection.lost:
                return
            if not told and self.loop.time() - began > self._times.connect_timeout:
                told = True
                log.warning("store is late, without %s: %s", self._purpose, self._address)
            await asyncio.sleep(PAUSE)
        if told:
            log.info("store answers in time again, for %s: %s", self._purpose, self._address)
        if connection.lost:
            return
        self._doubt_ended = self.loop.time()
        self.doubts += 1
        self.forgot = False
        self._doubted, self.connection = None, connection
        if self._turned is not None:
            self._turned(connection)

    def _on_lost(self, connection: StoreConnection) -> None:
        if connection is self._doubted:
            self._doubted = None
        elif connection is self.connection:
            self.connection = None
            if self._turned is not None:
                self._turned(None)
        else:
            return
        self.losses += 1
        self._lost.set()
        log.warning("store lost, without %s: %s", self._purpose, self._address)
