"""The nodes of a Redis/Valkey Cluster: one pipelined connection each, and who has which hash slot.

Asked with CLUSTER SLOTS at the start, every `REFRESH` seconds, and soon after a node was lost or sent somebody away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any, Final

from gateway.errors import StoreError
from gateway.store.address import StoreAddress
from gateway.store.buckets import SCRIPT
from gateway.store.connection import StoreConnection
from gateway.store.link import StoreLink, StoreTimes
from gateway.store.slots import SLOTS, slot_of

log = logging.getLogger(__name__)

REFRESH: Final = 15.0  # seconds between two looks at who has which slots
SOON: Final = 0.2  # seconds after a redirection or a loss
MOST_NODES: Final = 512

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

    @property
    def doubts(self) -> int:
        return sum(link.doubts for link in self._links.values())

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
