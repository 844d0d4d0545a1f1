"""The shared token buckets in Redis/Valkey: every decision of one loop tick leaves in one EVALSHA.

Implements `limits.limiter.BucketStore`: `take` never raises, and never waits longer than the link's deadline.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import hiredis

import gateway.limits
from gateway.errors import StoreError
from gateway.limits.bucket import Taken
from gateway.limits.limiter import Ask
from gateway.store.connection import StoreConnection
from gateway.store.link import StoreLink

SCRIPT: Final = Path(gateway.limits.__file__).with_name("bucket.lua").read_bytes()
SHA: Final = hashlib.sha1(SCRIPT, usedforsecurity=False).hexdigest()
MAX_ASKS: Final = 512  # buckets per call: bounds how long one script blocks the server (about 1 ms)


_Waiting = tuple[Sequence[Ask], asyncio.Future[list[Taken] | None]]  # a request's asks, and where its answer goes
_NUMBERS: Final = tuple(b"%d" % number for number in range(MAX_ASKS))


class SharedBuckets:
    """One per worker, on a link that has loaded `SCRIPT`."""

    def __init__(self, link: StoreLink, max_asks: int = MAX_ASKS) -> None:
        self._link = link
        self._max_asks = max_asks
        self._pending: list[_Waiting] = []
        self.calls = 0
        self.failures = 0

    def take(self, asks: Sequence[Ask]) -> asyncio.Future[list[Taken] | None] | None:
        if self._link.connection is None:
            return None
        loop = self._link.loop
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
            while end < len(pending) and len(keys) < self._max_asks:
                group = _NUMBERS[end - start]
                for ask in pending[end][0]:
                    keys.append(ask.key)
                    rate, burst = ask.policy.argv
                    argv += (rate, burst, b"1" if ask.cost == 1.0 else b"%r" % ask.cost, group)
                end += 1
            self._send(keys, argv, pending[start:end])
            start = end

    def _send(self, keys: list[bytes], argv: list[bytes], batch: list[_Waiting]) -> None:
        connection = self._link.connection
        if connection is None:
            _resolve_none(batch)
            return
        self.calls += 1
        command = (b"EVALSHA", SHA, len(keys), *keys, *argv)
        packed = hiredis.pack_command(command)  # type: ignore[arg-type]  # the stub says 1-tuple
        connection.send(packed, _Call(self, connection, batch, 2 * len(keys)).on_reply)


class _Call:
    """One EVALSHA on its way. Not a closure: compiled, each would be a cycle and keep the collector busy."""

    __slots__ = ("_batch", "_buckets", "_connection", "_length")

    def __init__(self, buckets: SharedBuckets, connection: StoreConnection, batch: list[_Waiting], length: int) -> None:
        self._buckets = buckets
        self._connection = connection
        self._batch = batch
        self._length = length

    def on_reply(self, reply: Any) -> None:
        if isinstance(reply, list) and len(reply) == self._length:
            _resolve(self._batch, reply)
            return
        self._buckets.failures += 1
        _resolve_none(self._batch)
        if not self._connection.lost:
            # NOSCRIPT after a restart or SCRIPT FLUSH, OOM, READONLY...: start over from a fresh connection.
            self._connection.drop(StoreError(f"unexpected reply: {reply!r}"))


def _resolve(batch: Sequence[_Waiting], reply: list[Any]) -> None:
    index = 0
    for asks, future in batch:
        taken = []
        for _ in asks:
            taken.append(Taken(reply[index] == 1, float(reply[index + 1])))
            index += 2
        if not future.done():
            future.set_result(taken)


def _resolve_none(batch: Sequence[_Waiting]) -> None:
    for _, future in batch:
        if not future.done():
            future.set_result(None)
