"""The places that this worker's requests hold of limits on concurrent requests, here and in the store.

The store frees a place by itself after its time, should the worker die; what is held for longer is renewed. While the
store is away places are taken and given back here alone; when it is back it forgets all it kept for this worker but
what is held then. `now` is monotonic nanoseconds.
"""

from __future__ import annotations

from typing import Final

from gateway.limits.local import LocalPlaces
from gateway.limits.store import BucketStore
from gateway.limits.verdict import YES, LimitVerdict

LONGEST: Final = 10_000_000_000  # nanoseconds a place is held without being renewed, if its worker dies


class HeldPlaces:
    """One per worker, which the store knows by `identity`."""

    def __init__(self, store: BucketStore, identity: bytes) -> None:
        self._store = store
        self._identity = identity
        self._local = LocalPlaces()
        self._held: dict[bytes, LimitVerdict] = {}  # by member
        self._known: dict[bytes, int] = {}  # keys of which the store kept places lately, and when last
        self._pruned = 0

    def __len__(self) -> int:
        return len(self._held)

    def free(self, key: bytes, most: int, workers: int) -> int:
        """Places of this worker's part that are left."""
        return self._local.free(key, most, workers)

    def hold(self, verdict: LimitVerdict, now: int, *, away: bool) -> None:
        """A request was admitted, by a store that is not `away` or without it."""
        verdict.holding = True
        self._held[verdict.member] = verdict
        for i, policy in enumerate(verdict.policies):
            if policy.concurrent:
                self._local.hold(verdict.keys[i])
        if not away:  # else the store has heard nothing of it, and an outage is no reason to grow
            self._note(verdict, now)

    def release(self, verdict: LimitVerdict) -> None:
        """It is over."""
        verdict.holding = False
        del self._held[verdict.member]
        for i, policy in enumerate(verdict.policies):
            if policy.concurrent:
                self._local.release(verdict.keys[i])
                self._store.release(verdict.keys[i], verdict.member)

    def tick(self, now: int, *, away: bool) -> None:
        """A few times a second: renews what is held for long."""
        if now - self._pruned > LONGEST and not away:  # what the store kept when it was lost stays known
            self._pruned = now
            self._known = {key: at for key, at in self._known.items() if now - at < LONGEST}
        for verdict in self._held.values():
            if now - verdict.now > verdict.life_ns // 2:
                verdict.now = now
                verdict.life_ns = LONGEST
                self._renew(verdict)
                if not away:
                    self._note(verdict, now)

    def back(self, now: int) -> None:
        """The store is there again. What it did of what it was last asked nobody knows: of the places that it keeps for
        this worker only those that are held stay, and all of them do.
        """
        for verdict in self._held.values():
            self._note(verdict, now)
        for key in self._known:
            self._store.forget(key, self._identity)
        for verdict in self._held.values():
            self._renew(verdict)

    def _note(self, verdict: LimitVerdict, now: int) -> None:
        for i, policy in enumerate(verdict.policies):
            if policy.concurrent:
                self._known[verdict.keys[i]] = now

    def _renew(self, verdict: LimitVerdict) -> None:
        for i, policy in enumerate(verdict.policies):
            if policy.concurrent and verdict.flags[i] == YES:
                self._store.renew(verdict.keys[i], verdict.member, verdict.life_ns)
