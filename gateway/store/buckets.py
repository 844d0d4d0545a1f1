"""The shared token buckets in Redis/Valkey: every decision of one loop tick leaves in one EVALSHA.

Implements `limits.limiter.BucketStore`. The store has a breaker of its own, which is simply "is there a working
connection": one overdue reply drops the connection and from then on nobody waits, until a new connection has
answered PING and loaded the script within its deadlines. Attempts to reconnect back off with full jitter.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import hiredis

import gateway.limits
from gateway.errors import StoreError
from gateway.limits.bucket import Taken
from gateway.limits.limiter import Ask
from gateway.store.address import StoreAddress
from gateway.store.connection import StoreConnection

log = logging.getLogger(__name__)

SCRIPT: Final = Path(gateway.limits.__file__).with_name("bucket.lua").read_bytes()
MAX_ASKS: Final = 512  # buckets per call: bounds how long one script blocks the server (about 1 ms)


@dataclass(frozen=True, slots=True)
class StoreTimes:
    """Seconds."""

    deadline: float = 0.025
    connect_timeout: float = 0.25
    reconnect_min: float = 0.05
    reconnect_max: float = 0.5


class SharedBuckets:
    """One per worker. `take` never raises and never waits longer than the deadline."""

    def __init__(self, address: StoreAddress, times: StoreTimes) -> None:
        self._address = address
        self._times = times
        self._connection: StoreConnection | None = None
        self._sha = b""
        self._pending: list[tuple[Sequence[Ask], asyncio.Future[list[Taken] | None]]] = []
        self._task: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()
        self.calls = 0
        self.failures = 0

    @property
    def up(self) -> bool:
        """Whether decisions are shared right now."""
        return self._connection is not None

    def start(self) -> None:
        """Begins connecting in the background; until then every decision is local."""
        self._task = asyncio.get_running_loop().create_task(self._keep_connected())

    async def ready(self, timeout: float) -> bool:
        """Waits up to `timeout` seconds for the first connection."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        while not self.up and loop.time() < end:
            await asyncio.sleep(0.005)
        return self.up

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._connection is not None:
            self._connection.drop(StoreError("closing"))

    # -- the request path ---------------------------------------------------------------------------------------

    def take(self, asks: Sequence[Ask]) -> asyncio.Future[list[Taken] | None] | None:
        if self._connection is None:
            return None
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Taken] | None] = loop.create_future()
        if not self._pending:
            loop.call_soon(self._flush)
        self._pending.append((asks, future))
        return future

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        start = 0
        while start < len(pending):
            keys: list[bytes] = []
            argv: list[bytes] = []
            end = start
            while end < len(pending) and len(keys) < MAX_ASKS:
                group = b"%d" % end
                for key, policy, cost in pending[end][0]:
                    keys.append(key)
                    argv += (*policy.argv, b"1" if cost == 1.0 else b"%r" % cost, group)
                end += 1
            self._send(keys, argv, pending[start:end])
            start = end

    def _send(
        self,
        keys: list[bytes],
        argv: list[bytes],
        batch: list[tuple[Sequence[Ask], asyncio.Future[list[Taken] | None]]],
    ) -> None:
        connection = self._connection
        if connection is None:
            _resolve_none(batch)
            return
        self.calls += 1

        def on_reply(reply: Any) -> None:
            if isinstance(reply, list) and len(reply) == 2 * len(keys):
                _resolve(batch, reply)
                return
            self.failures += 1
            _resolve_none(batch)
            if not connection.lost:
                # NOSCRIPT after a restart or SCRIPT FLUSH, OOM, READONLY...: start over from a fresh connection.
                connection.drop(StoreError(f"unexpected reply: {reply!r}"))

        command = (b"EVALSHA", self._sha, len(keys), *keys, *argv)
        connection.send(hiredis.pack_command(command), on_reply)  # type: ignore[arg-type]  # the stub says 1-tuple

    # -- connecting ---------------------------------------------------------------------------------------------

    async def _keep_connected(self) -> None:
        wait = 0.0
        told = False
        while True:
            try:
                connection = await self._connect()
            except StoreError as error:
                if not told:
                    log.warning("store is away, limits are decided locally: %s", error)
                    told = True
                wait = min(self._times.reconnect_max, max(self._times.reconnect_min, wait * 2))
                await asyncio.sleep(random.uniform(self._times.reconnect_min / 2, wait))  # noqa: S311 - jitter
                continue
            self._lost.clear()
            self._connection = connection
            log.info("store connected, limits are shared: %s", self._address)
            up_since = asyncio.get_running_loop().time()
            await self._lost.wait()
            told = True
            # A store that answers PING and then hangs again must not cost a deadline on every reconnect.
            steady = asyncio.get_running_loop().time() - up_since > 5.0
            wait = 0.0 if steady else min(self._times.reconnect_max, max(self._times.reconnect_min, wait * 2))
            await asyncio.sleep(max(wait, self._times.reconnect_min))

    async def _connect(self) -> StoreConnection:
        address, times = self._address, self._times
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(times.connect_timeout):
                if address.unix_path:
                    _, connection = await loop.create_unix_connection(self._make, address.unix_path)
                else:
                    _, connection = await loop.create_connection(
                        self._make, address.host, address.port, ssl=address.tls()
                    )
        except TimeoutError:
            raise StoreError(f"{address}: no connection within {times.connect_timeout * 1e3:.0f} ms") from None
        except OSError as error:
            raise StoreError(f"{address}: {error.strerror or error}") from None
        try:
            if address.password:
                await connection.call("AUTH", *([address.username] if address.username else []), address.password)
            if address.db:
                await connection.call("SELECT", address.db)
            await connection.call("PING")
            self._sha = await connection.call("SCRIPT", "LOAD", SCRIPT)
            if connection.lost:
                raise StoreError(f"{address}: the connection closed as soon as it was made")
        except StoreError:
            connection.drop(StoreError("set-up failed"))
            raise
        return connection

    def _make(self) -> StoreConnection:
        return StoreConnection(self._times.deadline, self._on_lost)

    def _on_lost(self, connection: StoreConnection) -> None:
        if connection is self._connection:
            self._connection = None
            self.failures += 1
            self._lost.set()
            log.warning("store lost, limits are decided locally: %s", self._address)


def _resolve(batch: Sequence[tuple[Sequence[Ask], asyncio.Future[list[Taken] | None]]], reply: list[Any]) -> None:
    index = 0
    for asks, future in batch:
        taken = []
        for _ in asks:
            taken.append(Taken(reply[index] == 1, float(reply[index + 1])))
            index += 2
        if not future.done():
            future.set_result(taken)


def _resolve_none(batch: Sequence[tuple[Sequence[Ask], asyncio.Future[list[Taken] | None]]]) -> None:
    for _, future in batch:
        if not future.done():
            future.set_result(None)
