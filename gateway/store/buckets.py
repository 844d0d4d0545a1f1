"""The shared buckets in Redis/Valkey: every operation of one loop tick leaves in one EVALSHA.

Implements `limits.store.BucketStore`: nothing raises, and nothing waits longer than the link's deadline. What is not
a decision (given back, charged, renewed) rides along with the decisions of its tick, also to a store that is late, and
is lost if the store is. A reply that comes after the worker decided by itself is told, too: what the store took for
nothing is given back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import hiredis

import gateway.limits
from gateway.errors import StoreError
from gateway.limits.bucket import BucketSpec
from gateway.limits.leases import Lease
from gateway.limits.store import LeaseHolder
from gateway.limits.verdict import LimitVerdict
from gateway.promise import FEWEST, Promise
from gateway.store import program
from gateway.store.connection import StoreConnection
from gateway.store.link import StoreLink

SCRIPT: Final = Path(gateway.limits.__file__).with_name("bucket.lua").read_bytes()
SHA: Final = hashlib.sha1(SCRIPT, usedforsecurity=False).hexdigest().encode()
MAX_KEYS: Final = 512  # per call: bounds how long one script blocks the server (about 1 ms)
MOST_SHAPES: Final = 1024  # whose programs are kept ready
MAX_TRIES: Final = 3  # redirections that one call follows
ASKING: Final = hiredis.pack_command((b"ASKING",))


class _Rows:
    """The requests of a tick that ask for limits of the same shape."""

    __slots__ = ("keys", "numbers", "shape", "verdicts", "width")

    def __init__(self, shape: bytes, width: int) -> None:
        self.shape = shape
        self.width = width
        self.keys: list[bytes] = []
        self.numbers: list[bytes] = []
        self.verdicts: list[LimitVerdict] = []


class SharedBuckets:
    """On a link that has loaded `SCRIPT`. `redirected` is asked about what a node of a cluster says of another."""

    def __init__(
        self, link: StoreLink, max_keys: int = MAX_KEYS, redirected: Callable[[Call, str], bool] | None = None
    ) -> None:
        self._link = link
        self.redirected = redirected
        self._max_keys = max_keys
        self._due = False
        self._singles: dict[bytes, bytes] = {}  # by shape: the program of one request
        self._rows: dict[bytes, _Rows] = {}
        self._others: dict[int, tuple[list[bytes], list[bytes]]] = {}  # operation: keys and numbers
        self._leases: list[tuple[Lease, LeaseHolder]] = []
        self.calls = 0
        self.failures = 0

    @property
    def connected(self) -> bool:
        return self._link.connection is not None

    def use(self, link: StoreLink) -> None:
        """From now on over this link."""
        self._link = link

    # -- what is asked ------------------------------------------------------------------------------------------

    def take(self, verdict: LimitVerdict) -> bool:
        link = self._link
        if link.connection is None:
            return False
        if not self._due:
            self._due = True
            link.loop.call_soon(self._flush)
        shape = verdict.shape
        rows = self._rows.get(shape)
        if rows is None:
            rows = self._rows[shape] = _Rows(shape, len(verdict.keys))
        rows.keys += verdict.keys
        rows.verdicts.append(verdict)
        varies = shape[0]
        if varies:
            if varies & 1:
                rows.numbers.append(program.costs(verdict.costs))
            if varies & 2:
                rows.numbers.append(verdict.member + program.lifetime(verdict.life_ns / 1e3))
        verdict.pending = Promise(link.loop)
        return True

    def adjust(self, key: bytes, spec: BucketSpec, tokens: float) -> bool:
        return self._add(program.ADJUST, key, program.triple(spec.rate, spec.burst, tokens))

    def release(self, key: bytes, member: bytes) -> None:
        self._add(program.RELEASE, key, member)

    def forget(self, key: bytes, worker: bytes) -> None:
        self._add(program.FORGET, key, worker)

    def renew(self, key: bytes, member: bytes, life_ns: int) -> None:
        self._add(program.RENEW, key, member + program.lifetime(life_ns / 1e3))

    def hint(self, key: bytes, spec: BucketSpec, level: float) -> None:
        self._add(program.HINT, key, program.triple(spec.rate, spec.burst, level))

    def lease(self, lease: Lease, want: float, to: LeaseHolder) -> bool:
        if not self.connected or not self._add(program.LEASE, lease.key, program.triple(lease.rate, lease.burst, want)):
            return False
        self._leases.append((lease, to))
        return True

    def _add(self, operation: int, key: bytes, numbers: bytes) -> bool:
        link = self._link
        if link.open is None:
            return False
        if not self._due:
            self._due = True
            link.loop.call_soon(self._flush)
        group = self._others.get(operation)
        if group is None:
            group = self._others[operation] = ([], [])
        group[0].append(key)
        group[1].append(numbers)
        return True

    # -- what is sent -------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Sends what waits now, before the connection is closed."""
        if self._due:
            self._flush()

    def _flush(self) -> None:
        rows, self._rows = self._rows, {}
        others, self._others = self._others, {}
        leases, self._leases = self._leases, []
        self._due = False
        call = Call(self)
        if not others and len(rows) == 1:
            (one,) = rows.values()
            if len(one.verdicts) == 1:  # as at low load
                self._fill_single(call, one)
                self._send(call)
                return
        # Levels a worker knows come before they are asked for, what comes back before what is taken.
        for operation in (program.HINT, program.ADJUST, program.RELEASE, program.FORGET, program.RENEW):
            if operation in others:
                call = self._fill(call, operation, others[operation])
        for one in rows.values():
            call = self._fill_rows(call, one)
        if leases:
            call = self._fill(call, program.LEASE, others[program.LEASE], leases)
        if call.keys:
            self._send(call)

    def _fill_single(self, call: Call, one: _Rows) -> None:
        first = self._singles.get(one.shape)
        if first is None:
            if len(self._singles) >= MOST_SHAPES:
                self._singles = {}
            first = self._singles[one.shape] = program.head(program.TAKE, 1, one.width) + one.shape
        call.parts = [first, *one.numbers]
        call.keys = one.keys
        call.taken.append((one.width, one.verdicts))
        call.asks = one.width

    def _fill(
        self,
        call: Call,
        operation: int,
        group: tuple[list[bytes], list[bytes]],
        leases: Sequence[tuple[Lease, LeaseHolder]] = (),
    ) -> Call:
        keys, numbers = group
        start = 0
        while start < len(keys):
            room = self._max_keys - len(call.keys)
            if room <= 0:
                self._send(call)
                call, room = Call(self), self._max_keys
            end = min(start + room, len(keys))
            call.parts.append(program.head(operation, end - start, 1))
            call.parts += numbers[start:end]
            call.keys += keys[start:end]
            call.leases = leases[start:end]
            start = end
        return call

    def _fill_rows(self, call: Call, rows: _Rows) -> Call:
        width, verdicts = rows.width, rows.verdicts
        each = (rows.shape[0] & 1) + (rows.shape[0] >> 1 & 1)  # numbers a row
        start = 0
        while start < len(verdicts):
            room = (self._max_keys - len(call.keys)) // width
            if room <= 0:
                if call.keys:
                    self._send(call)
                    call = Call(self)
                room = max(1, self._max_keys // width)
            if start == 0 and len(verdicts) <= room:
                call.parts += (program.head(program.TAKE, len(verdicts), width), rows.shape)
                call.parts += rows.numbers
                call.keys += rows.keys
                call.taken.append((width, verdicts))
                call.asks += len(rows.keys)
                return call
            end = min(start + room, len(verdicts))
            call.parts += (program.head(program.TAKE, end - start, width), rows.shape)
            call.parts += rows.numbers[start * each : end * each]
            call.keys += rows.keys[start * width : end * width]
            call.taken.append((width, verdicts[start:end]))
            call.asks += (end - start) * width
            start = end
        return call

    def _send(self, call: Call) -> None:
        connection = self._link.connection
        if connection is None and not call.taken and not call.leases:
            connection = self._link.open
        if connection is None:
            call.fail()
            call.unsent()
            return
        self.calls += 1
        call.send(connection)


class Call:
    """One EVALSHA on its way. Not a closure: compiled, each would be a cycle and keep the collector busy."""

    __slots__ = ("_buckets", "_tries", "asks", "connection", "keys", "leases", "parts", "taken")

    def __init__(self, buckets: SharedBuckets) -> None:
        self._buckets = buckets
        self.connection: StoreConnection | None = None
        self.keys: list[bytes] = []
        self.parts: list[bytes] = []
        self.taken: list[tuple[int, list[LimitVerdict]]] = []
        self.leases: Sequence[tuple[Lease, LeaseHolder]] = ()
        self.asks = 0
        self._tries = 0

    def send(self, connection: StoreConnection) -> None:
        self.connection = connection
        command = (b"EVALSHA", SHA, len(self.keys), *self.keys, b"".join(self.parts))
        connection.send(hiredis.pack_command(command), self.on_reply, self.too_late)  # type: ignore[arg-type]  # the stub says 1-tuple

    def again(self, link: StoreLink, *, asking: bool) -> bool:
        """Sends it to another node, that the first one named. False: not connected, or enough of it."""
        connection = link.connection
        self._tries += 1
        if connection is None or self._tries > MAX_TRIES:
            return False
        if asking:
            connection.send(ASKING, _ignore)
        self.send(connection)
        return True

    def on_reply(self, reply: Any) -> None:
        doubles = self.asks + 2 * len(self.leases)
        if isinstance(reply, bytes) and len(reply) == 8 * doubles + self.asks:
            self._read(reply, doubles)
            return
        redirected = self._buckets.redirected
        if redirected is not None and isinstance(reply, hiredis.ReplyError):
            said = str(reply)
            if said.startswith(("MOVED ", "ASK ", "TRYAGAIN", "CLUSTERDOWN")):
                if not redirected(self, said):
                    self._buckets.failures += 1
                    self.fail()
                return
        self._buckets.failures += 1
        self.fail()
        if isinstance(reply, StoreError):  # late or lost, which the link judges
            return
        connection = self.connection
        if connection is not None and not connection.lost:
            # NOSCRIPT after a restart or SCRIPT FLUSH, OOM, READONLY...: start over from a fresh connection.
            connection.drop(StoreError(f"unexpected reply: {reply!r}"))

    def _read(self, reply: bytes, doubles: int) -> None:
        numbers = program.numbers(reply, doubles)
        at, flag = 0, 8 * doubles
        alone = len(self.keys) <= FEWEST
        for width, verdicts in self.taken:
            for verdict in verdicts:
                verdict.told(numbers[at : at + width], reply[flag : flag + width])
                at += width
                flag += width
                pending = verdict.pending
                if pending is None:
                    continue
                if alone:
                    pending.keep_now(None)
                else:
                    pending.keep(None)
        for lease, to in self.leases:
            to.granted(lease, numbers[at], numbers[at + 1])
            at += 2

    def too_late(self, reply: Any) -> None:
        """Everybody has decided alone, and here is what the store did. An error took nothing, and stays unsaid."""
        doubles = self.asks + 2 * len(self.leases)
        if not isinstance(reply, bytes) or len(reply) != 8 * doubles + self.asks:
            return
        flag = 8 * doubles
        for width, verdicts in self.taken:
            for verdict in verdicts:
                verdict.late(reply[flag : flag + width])
                flag += width
        numbers = program.numbers(reply, doubles)
        at = self.asks
        for lease, to in self.leases:
            to.granted_late(lease, numbers[at])
            at += 2

    def unsent(self) -> None:
        """After `fail`: it never left, so the store took nothing of what was spent alone."""
        for width, verdicts in self.taken:
            for verdict in verdicts:
                verdict.late(b"0" * width)

    def fail(self) -> None:
        """Everybody who waits decides alone."""
        for _, verdicts in self.taken:
            for verdict in verdicts:
                verdict.lost()
                if verdict.pending is not None:
                    verdict.pending.keep(None)
        for lease, to in self.leases:
            to.lease_lost(lease)


def _ignore(_reply: Any) -> None:
    """ASKING is answered with OK."""
