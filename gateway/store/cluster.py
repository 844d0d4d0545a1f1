"""Buckets in a Redis/Valkey Cluster: one pipelined connection a node, and a script call a hash slot and loop tick.

Implements `limits.limiter.BucketStore`. The slot of a key is CRC16 of its hash tag (Redis Cluster specification). What
a node redirects is followed: MOVED to the slot's new node from then on, ASK once. A request whose buckets lie in
several slots asks all of them at once; if one refuses or cannot be asked, what the others took is given back,
so it is still admitted by all or takes from none. For a moment they may hold less than they should, never more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any, Final

from gateway.errors import StoreError
from gateway.limits.bucket import BucketSpec
from gateway.limits.leases import Lease
from gateway.limits.limiter import YES, Decider, LeaseHolder, LimitVerdict, RouteLimits
from gateway.store.address import StoreAddress
from gateway.store.buckets import SCRIPT, Call, SharedBuckets
from gateway.store.connection import StoreConnection
from gateway.store.link import StoreLink, StoreTimes
from gateway.store.slots import SLOTS, slot_of

log = logging.getLogger(__name__)

REFRESH: Final = 15.0  # seconds between two looks at who has which slots
SOON: Final = 0.2  # seconds after a redirection or a loss
MOST_NODES: Final = 512
MOST_SHAPES: Final = 1024  # cut shapes that are kept ready

Node = tuple[str, int]


class Cluster:
    """The nodes of a cluster as far as they are needed: links, and which of them has a slot."""

    def __init__(self, address: StoreAddress, times: StoreTimes, turned: Callable[[bool], None]) -> None:
        self.loop = asyncio.get_running_loop()
        self._address = address
        self._times = times
        self._turned = turned
        self._links: dict[Node, StoreLink] = {}
        self._slots: list[Node | None] = [None] * SLOTS
        self._seen: set[Node] = set()
        self._task: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        self._closing: set[asyncio.Task[None]] = set()
        self._known = False

    @property
    def up(self) -> bool:
        """Whether every slot's node can be asked."""
        return self._known and all(link.connection is not None for link in self._links.values())

    @property
    def losses(self) -> int:
        return sum(link.losses for link in self._links.values())

    def start(self) -> None:
        """Begins to look for the nodes in the background."""
        self._task = self.loop.create_task(self._keep())

    async def ready(self, timeout: float) -> bool:
        """Waits up to `timeout` seconds until every slot's node can be asked."""
        end = self.loop.time() + timeout
        while not self.up and self.loop.time() < end:
            await asyncio.sleep(0.005)
        return self.up

    async def close(self) -> None:
        """Drops every connection."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for link in self._links.values():
            await link.close()
        if self._closing:
            await asyncio.wait(self._closing)

    def of_slot(self, slot: int) -> StoreLink | None:
        """The link to the node that has `slot`, connected or not; None while nobody knows."""
        node = self._slots[slot]
        return None if node is None else self._links.get(node)

    def of_key(self, key: bytes) -> StoreLink | None:
        """The link for one key."""
        return self.of_slot(slot_of(key))

    def node(self, node: Node) -> StoreLink | None:
        """The link to `node`, made if there is none yet."""
        link = self._links.get(node)
        if link is None and len(self._links) < MOST_NODES:
            link = self._links[node] = StoreLink(
                self._address.at(*node), self._times, [SCRIPT], purpose="shared limits", turned=_Turn(self, node).turned
            )
            link.start()
        return link

    def moved(self, slot: int, node: Node) -> StoreLink | None:
        """A node said who has `slot` now."""
        self._slots[slot] = node
        self._wanted.set()
        return self.node(node)

    def turned(self, node: Node, connection: StoreConnection | None) -> None:
        """A node was lost, or is there (again)."""
        if connection is None:
            self._wanted.set()
            self._turned(False)
        else:
            again = node in self._seen
            self._seen.add(node)
            if again:
                self._turned(True)

    # -- who has what -------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        asked = 0
        while True:
            try:
                await self._refresh(asked)
                wait = REFRESH
            except (StoreError, OSError, TimeoutError) as error:
                if asked == 0:
                    log.warning("the cluster does not say who has which slots: %s", error)
                wait = SOON
            asked += 1
            self._wanted.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wanted.wait()
            await asyncio.sleep(SOON)

    async def _refresh(self, turn: int) -> None:
        """Asks a node that is connected, else a seed."""
        connected = [link.connection for link in self._links.values() if link.connection is not None]
        if connected:
            self._take(await connected[turn % len(connected)].call("CLUSTER", "SLOTS"), "")
            return
        seeds = self._address.seeds
        host, port = seeds[turn % len(seeds)]
        link = StoreLink(self._address.at(host, port), self._times, purpose="the cluster's slots")
        link.start()
        try:
            if not await link.ready(self._times.connect_timeout) or link.connection is None:
                raise StoreError(f"{host}:{port} does not answer")
            self._take(await link.connection.call("CLUSTER", "SLOTS"), host)
        finally:
            await link.close()

    def _take(self, reply: Any, asked: str) -> None:
        """The reply to CLUSTER SLOTS: ranges with their nodes, the master first."""
        slots: list[Node | None] = [None] * SLOTS
        for first, last, master, *_ in reply:
            host, port = master[0], int(master[1])
            # No host: the one that was asked.
            node = (host.decode() if host else asked, port)
            for slot in range(int(first), int(last) + 1):
                slots[slot] = node
        used = {node for node in slots if node is not None}
        if not used:
            raise StoreError("no node has any slots")
        self._slots = slots
        self._known = True
        for node in used:
            self.node(node)
        for node in [node for node in self._links if node not in used]:
            closing = self.loop.create_task(self._links.pop(node).close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)


class _Turn:
    """Remembers which node a link is of."""

    def __init__(self, cluster: Cluster, node: Node) -> None:
        self._cluster = cluster
        self._node = node

    def turned(self, connection: StoreConnection | None) -> None:
        self._cluster.turned(self._node, connection)


class ClusterBuckets:
    """One per worker: hands each key to the buckets of its slot."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._buckets: dict[int, SharedBuckets] = {}
        self._shapes: dict[tuple[bytes, tuple[int, ...]], bytes] = {}
        self.redirections = 0

    @property
    def calls(self) -> int:
        return sum(buckets.calls for buckets in self._buckets.values())

    @property
    def failures(self) -> int:
        return sum(buckets.failures for buckets in self._buckets.values())

    def flush(self) -> None:
        """Sends what waits now, before the connections are closed."""
        for buckets in self._buckets.values():
            buckets.flush()

    def take(self, verdict: LimitVerdict) -> bool:
        keys = verdict.keys
        first = slot_of(keys[0])
        if len(keys) == 1:
            buckets = self._of(first)
            return buckets is not None and buckets.take(verdict)
        groups: dict[int, list[int]] = {}
        for i, key in enumerate(keys):
            groups.setdefault(slot_of(key), []).append(i)
        if len(groups) == 1:
            buckets = self._of(first)
            return buckets is not None and buckets.take(verdict)
        asked = [(self._of(slot), indices) for slot, indices in groups.items()]
        if any(buckets is None or not buckets.connected for buckets, _ in asked):
            return False
        verdict.pending = self._cluster.loop.create_future()
        whole = _Whole(self, verdict, len(asked))
        for buckets, indices in asked:
            assert buckets is not None
            buckets.take(whole.part(indices))
        return True

    def adjust(self, key: bytes, spec: BucketSpec, tokens: float) -> bool:
        buckets = self._of(slot_of(key))
        return buckets is not None and buckets.adjust(key, spec, tokens)

    def release(self, key: bytes, member: bytes) -> None:
        buckets = self._of(slot_of(key))
        if buckets is not None:
            buckets.release(key, member)

    def renew(self, key: bytes, member: bytes, life_ns: int) -> None:
        buckets = self._of(slot_of(key))
        if buckets is not None:
            buckets.renew(key, member, life_ns)

    def hint(self, key: bytes, spec: BucketSpec, level: float) -> None:
        buckets = self._of(slot_of(key))
        if buckets is not None:
            buckets.hint(key, spec, level)

    def lease(self, lease: Lease, want: float, to: LeaseHolder) -> bool:
        buckets = self._of(slot_of(lease.key))
        return buckets is not None and buckets.lease(lease, want, to)

    def redirected(self, call: Call, message: str) -> bool:
        """Follows MOVED and ASK; False: the call fails. A call follows a few."""
        kind, _, rest = message.partition(" ")
        number, _, where = rest.partition(" ")
        host, _, port = where.rpartition(":")
        if kind not in ("MOVED", "ASK") or not number.isdigit() or not port.isdigit():
            return False
        self.redirections += 1
        slot, node = int(number), (host, int(port))
        link = self._cluster.moved(slot, node) if kind == "MOVED" else self._cluster.node(node)
        return link is not None and call.again(link, asking=kind == "ASK")

    def shape(self, limits: RouteLimits, verdict: LimitVerdict, indices: list[int]) -> bytes:
        """The shape of some of a verdict's limits."""
        which = (verdict.shape, tuple(indices))
        shape = self._shapes.get(which)
        if shape is None:
            if len(self._shapes) >= MOST_SHAPES:
                self._shapes = {}
            shape = self._shapes[which] = limits.packed([verdict.policies[i] for i in indices])
        return shape

    def _of(self, slot: int) -> SharedBuckets | None:
        link = self._cluster.of_slot(slot)
        if link is None:
            return None
        buckets = self._buckets.get(slot)
        if buckets is None:
            buckets = self._buckets[slot] = SharedBuckets(link, redirected=self.redirected)
        buckets.use(link)
        return buckets


class _Whole(Decider):
    """A request that lies in several slots: hears of its parts and decides when all have spoken."""

    def __init__(self, buckets: ClusterBuckets, verdict: LimitVerdict, parts: int) -> None:
        self._buckets = buckets
        self._verdict = verdict
        self._missing = parts
        self._lost = False
        self._parts: list[tuple[LimitVerdict, list[int]]] = []

    def part(self, indices: list[int]) -> LimitVerdict:
        """The limits at these places, as a verdict of their own."""
        whole = self._verdict
        part = LimitVerdict(self, whole.limits, [whole.keys[i] for i in indices], whole.now)
        part.policies = tuple([whole.policies[i] for i in indices])
        part.costs = [whole.costs[i] for i in indices]
        part.shape = self._buckets.shape(whole.limits, whole, indices)
        part.member, part.life_ns = whole.member, whole.life_ns
        self._parts.append((part, indices))
        return part

    def told(self, verdict: LimitVerdict) -> None:
        verdict.allowed = all(verdict.flags[i] == YES or policy.shadow for i, policy in enumerate(verdict.policies))
        self._one()

    def lost(self, verdict: LimitVerdict) -> None:
        verdict.allowed = False
        self._lost = True
        self._one()

    def _one(self) -> None:
        self._missing -= 1
        if self._missing:
            return
        verdict = self._verdict
        allowed = not self._lost and all(part.allowed for part, _ in self._parts)
        if not allowed:
            for part, _ in self._parts:
                if part.allowed:
                    self._undo(part)
        if self._lost:
            verdict.lost()
        else:
            levels = [0.0] * len(verdict.keys)
            flags = bytearray(len(verdict.keys))
            for part, indices in self._parts:
                for at, i in enumerate(indices):
                    levels[i] = part.levels[at]
                    flags[i] = part.flags[at]
            verdict.told(levels, bytes(flags))
        pending = verdict.pending
        assert isinstance(pending, asyncio.Future)
        if not pending.done():
            pending.set_result(None)

    def _undo(self, part: LimitVerdict) -> None:
        levels = list(part.levels)
        for i, policy in enumerate(part.policies):
            if part.flags[i] != YES:
                continue
            if policy.concurrent:
                self._buckets.release(part.keys[i], part.member)
                levels[i] += 1
            else:
                self._buckets.adjust(part.keys[i], policy.spec, part.costs[i])
                levels[i] += part.costs[i]
        part.levels = levels
