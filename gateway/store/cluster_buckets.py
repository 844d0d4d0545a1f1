"""Buckets in a cluster: a script call a hash slot and loop tick, redirections followed, lone slots and several.

Implements `limits.store.BucketStore`. A request whose buckets lie in several slots asks all of them at once; if one
refuses or cannot be asked, what the others took is given back, so it is still admitted by all or takes from none. For
a moment they may hold less than they should, never more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gateway.limits.bucket import BucketSpec
from gateway.limits.leases import Lease
from gateway.limits.store import LeaseHolder
from gateway.limits.verdict import YES, Decider, LimitVerdict, RouteLimits
from gateway.promise import Promise
from gateway.store.buckets import Call, SharedBuckets
from gateway.store.cluster import Cluster
from gateway.store.slots import slot_of

MOST_SHAPES: Final = 1024  # cut shapes that are kept ready


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
        verdict.pending = Promise(self._cluster.loop)
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

    def forget(self, key: bytes, worker: bytes) -> None:
        buckets = self._of(slot_of(key))
        if buckets is not None:
            buckets.forget(key, worker)

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

    def late(self, verdict: LimitVerdict, places: Sequence[int], flags: bytes) -> None:
        verdict.flags = flags  # of a part: all its places
        if not self._missing:
            for part, indices in self._parts:
                if part is verdict:
                    self._verdict.late(flags, [indices[at] for at in places])

    def _one(self) -> None:
        self._missing -= 1
        if self._missing:
            return
        verdict = self._verdict
        if self._lost:
            verdict.lost()
            for part, indices in self._parts:
                if part.flags:  # it pays for what was decided without the others, or comes back
                    verdict.late(part.flags, indices)
        else:
            if not all(part.allowed for part, _ in self._parts):
                for part, _ in self._parts:
                    if part.allowed:
                        self._undo(part)
            levels = [0.0] * len(verdict.keys)
            flags = bytearray(len(verdict.keys))
            for part, indices in self._parts:
                for at, i in enumerate(indices):
                    levels[i] = part.levels[at]
                    flags[i] = part.flags[at]
            verdict.told(levels, bytes(flags))
        if verdict.pending is not None:
            verdict.pending.keep(None)

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
