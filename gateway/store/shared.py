"""The store as a worker has it, whatever its kind: one server, the master that Sentinel names, or a cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gateway.limits.store import BucketStore
from gateway.store.address import StoreAddress
from gateway.store.buckets import SCRIPT, SharedBuckets
from gateway.store.cluster import Cluster
from gateway.store.cluster_buckets import ClusterBuckets
from gateway.store.connection import StoreConnection
from gateway.store.link import StoreLink, StoreTimes

ERA: Final = ":era"  # the key that lasts as long as the store's memory


class SharedStore:
    """`turned(up, forgot)` is told when the store is lost (or a node of it), and when it is there again: whether it has
    lost its memory meanwhile. Of a cluster's nodes that is not known, so they count as forgetful.
    """

    def __init__(
        self, address: StoreAddress, times: StoreTimes, prefix: str, turned: Callable[[bool, bool], None]
    ) -> None:
        self._turned = turned
        self._link: StoreLink | None = None
        self._cluster: Cluster | None = None
        self._buckets: SharedBuckets | ClusterBuckets
        if address.seeds:
            self._cluster = Cluster(address, times, self._node_turned)
            self._buckets = ClusterBuckets(self._cluster)
        else:
            marker = f"{prefix}{ERA}".encode()
            self._link = StoreLink(address, times, [SCRIPT], marker=marker, turned=self._link_turned)
            self._buckets = SharedBuckets(self._link)

    @property
    def buckets(self) -> BucketStore:
        return self._buckets

    @property
    def up(self) -> bool:
        """Whether decisions are shared."""
        if self._link is not None:
            return self._link.connection is not None
        return self._cluster is not None and self._cluster.up

    @property
    def calls(self) -> int:
        return self._buckets.calls

    @property
    def losses(self) -> int:
        """Connections that were given up."""
        line = self._link or self._cluster
        return line.losses if line is not None else 0

    @property
    def failures(self) -> int:
        """Calls and connections that failed."""
        return self._buckets.failures + self.losses

    @property
    def doubts(self) -> int:
        """How often the store was late and was soon asked again, over the same connection."""
        line = self._link or self._cluster
        return line.doubts if line is not None else 0

    def link(self, key: bytes) -> StoreLink | None:
        """The line to the server that has `key`."""
        return self._link if self._cluster is None else self._cluster.of_key(key)

    def start(self) -> None:
        """Begins connecting in the background."""
        line = self._link or self._cluster
        assert line is not None
        line.start()

    async def ready(self, timeout: float) -> bool:
        """Waits up to `timeout` seconds for the first connection."""
        if self._link is not None:
            return await self._link.ready(timeout)
        assert self._cluster is not None
        return await self._cluster.ready(timeout)

    def flush(self) -> None:
        """Sends what waits, before the end."""
        self._buckets.flush()

    async def close(self) -> None:
        line = self._link or self._cluster
        assert line is not None
        await line.close()

    def _link_turned(self, connection: StoreConnection | None) -> None:
        assert self._link is not None
        self._turned(connection is not None, self._link.forgot)

    def _node_turned(self, up: bool) -> None:
        self._turned(up, True)
