"""What the limiter asks of the shared store, and what the store tells it."""

from __future__ import annotations

from typing import Protocol

from gateway.limits.bucket import BucketSpec
from gateway.limits.leases import Lease
from gateway.limits.verdict import LimitVerdict


class BucketStore(Protocol):
    """Where the shared buckets live. Nothing here raises or waits."""

    def take(self, verdict: LimitVerdict) -> bool:
        """Asks; sets `pending`, and later calls `told`, or `lost` and perhaps `late`. False: the store is away."""

    def adjust(self, key: bytes, spec: BucketSpec, tokens: float) -> bool:
        """Gives tokens back, or charges them if negative. False: it could not be sent."""

    def release(self, key: bytes, member: bytes) -> None:
        """Gives a place back."""

    def forget(self, key: bytes, worker: bytes) -> None:
        """Gives all places back whose members begin with `worker`, but for those that are renewed in the same tick."""

    def renew(self, key: bytes, member: bytes, life_ns: int) -> None:
        """Holds a place for longer."""

    def lease(self, lease: Lease, want: float, to: LeaseHolder) -> bool:
        """Takes up to `want` whole tokens in advance; later calls `granted`, or `lease_lost`, and then perhaps
        `granted_late`.
        """

    def hint(self, key: bytes, spec: BucketSpec, level: float) -> None:
        """The level of a bucket, for a store that may have lost it."""


class LeaseHolder(Protocol):
    """Who hears what became of a lease."""

    def granted(self, lease: Lease, tokens: float, level: float) -> None: ...

    def lease_lost(self, lease: Lease) -> None: ...

    def granted_late(self, lease: Lease, tokens: float) -> None: ...
