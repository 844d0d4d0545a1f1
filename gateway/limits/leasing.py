"""What a worker holds on lease: tokens that the shared store gave in advance, spent here without asking it again.

Invariants: a request passes on leases alone, or not at all; tokens that nobody knows to be taken are not spent; what is
left when a lease ends is given back. Pure: `now` is monotonic nanoseconds.
"""

from __future__ import annotations

from gateway.limits.bucket import BucketSpec
from gateway.limits.leases import Lease, LeaseBook
from gateway.limits.local import LocalBuckets
from gateway.limits.store import BucketStore
from gateway.limits.verdict import LEASED, YES, LimitVerdict


class Leasing:
    """Of one worker: a `LeaseHolder` towards the store. `workers` share the limits; `now` is kept by the limiter."""

    def __init__(self, store: BucketStore, local: LocalBuckets, workers: int) -> None:
        self._store = store
        self._local = local
        self._book = LeaseBook()
        self.workers = workers
        self.now = 0

    @property
    def keys(self) -> int:
        """That have a lease."""
        return len(self._book)

    def spend(self, verdict: LimitVerdict, now: int) -> bool:
        """Decides from leases, if there is one for every limit; asks for more in time."""
        leases: list[Lease] = []
        short = False
        refuses = -1
        complete = True
        for i, policy in enumerate(verdict.policies):
            cost = verdict.costs[i]
            lease = self._book.find(verdict.keys[i], policy.spec.rate, policy.spec.burst, now)
            if lease is None:
                complete = False
                continue
            lease.note(cost, now)
            leases.append(lease)
            if lease.tokens < cost or now > lease.end:
                short = True
                if lease.tokens < cost and refuses < 0 and lease.refuses(now) and not policy.shadow:
                    refuses = i
        if not complete:
            return False
        if refuses >= 0:
            verdict.by = LEASED
            verdict.levels = [lease.left(now) for lease in leases]
            costs = verdict.costs
            verdict.flags = bytes([YES if lease.tokens >= costs[i] else YES - 1 for i, lease in enumerate(leases)])
            verdict.refused = refuses
            verdict.levels = [min(level, costs[i] * 0.999) if verdict.flags[i] != YES else level
                              for i, level in enumerate(verdict.levels)]  # fmt: skip
            return True
        if not short:
            levels: list[float] = []
            for i, lease in enumerate(leases):
                lease.tokens -= verdict.costs[i]
                levels.append(lease.left(now))
                if lease.tokens <= lease.low and not lease.asked and not (lease.short and lease.refused_until > now):
                    self.ask(lease)
            verdict.by = LEASED
            verdict.levels = levels
            verdict.flags = verdict.limits.yes
            verdict.allowed = True
            return True
        for lease in leases:
            if not lease.asked:
                self.ask(lease)
        return False

    def ask(self, lease: Lease) -> None:
        """Asks for as many tokens as the lease wants now."""
        want = lease.wanted(self.workers)
        if want >= 1.0 and self._store.lease(lease, want, self):
            lease.asked = True
            lease.want = want

    def told(self, verdict: LimitVerdict) -> None:
        """What an exact answer says of keys with a lease."""
        for i, key in enumerate(verdict.keys):
            lease = self._book.get(key)
            if lease is not None:
                lease.level = verdict.levels[i]
                lease.level_at = self.now
                if verdict.flags[i] != YES:
                    lease.pause(self.now)

    def granted(self, lease: Lease, tokens: float, level: float) -> None:
        """The store gave tokens in advance."""
        self._local.learn(lease.key, level, self.now / 1e3)
        lease.came(tokens, level, self.now)
        if self._book.get(lease.key) is not lease:  # it ended meanwhile
            self._return(lease)

    def lease_lost(self, lease: Lease) -> None:
        """Nobody knows whether the tokens were taken: they are not spent."""
        lease.asked = False

    def granted_late(self, lease: Lease, tokens: float) -> None:
        """They were taken after all: they are spent, or given back if the lease is over."""
        lease.found(tokens, self.now)
        if self._book.get(lease.key) is not lease:
            self._return(lease)

    def _return(self, lease: Lease) -> None:
        tokens, lease.tokens = lease.tokens, 0.0
        if tokens > 0:
            self._store.adjust(lease.key, BucketSpec(lease.rate, lease.burst), tokens)

    def tick(self) -> None:
        """A few times a second: ends leases that nobody needs."""
        for lease in self._book.ended(self.now):
            self._return(lease)

    def end(self) -> None:
        """Gives all leased tokens back: at a reload, and before the worker ends."""
        for lease in self._book.all():
            self._return(lease)
