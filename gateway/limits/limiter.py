"""Decides whether a request may pass its limits: asks the shared store, spends a lease, or decides alone.

Invariants: a request is admitted by all of its limits or takes from none; the store never delays a request beyond the
store's own deadline; a failed store never turns into an error for the client; what a request holds (a place, tokens
that it turned out not to cost) is given back exactly once, whatever becomes of it.

`begin` decides at once or leaves `pending` to be awaited; `answered` settles by the answer's head; `end` gives back.
Pure: `now` is monotonic nanoseconds, the store does the waiting.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gateway.limits.costs import NONSENSE
from gateway.limits.held import LONGEST, HeldPlaces
from gateway.limits.leasing import Leasing
from gateway.limits.local import LocalBuckets
from gateway.limits.scopes import bucket_key
from gateway.limits.store import BucketStore
from gateway.limits.verdict import ALONE, COSTS, YES, Decider, LimitVerdict, RouteLimits
from gateway.request import Request, Response

GRACE: Final = 1_000_000_000  # nanoseconds past a request's deadline


class Limiter(Decider):
    """One per worker; survives reloads, because levels belong to clients and not to a configuration.

    `identity` (8 bytes) names this worker among all that share the store.
    """

    def __init__(self, store: BucketStore, workers: int = 1, identity: bytes = b"\0" * 8) -> None:
        self._store = store
        self._local = LocalBuckets()
        self._held = HeldPlaces(store, identity)
        self._leasing = Leasing(store, self._local, workers)
        self._identity = identity
        self._count = 0
        self._now = 0
        self._alone_us: float | None = None  # since when decisions are local
        self._is_away = False
        self._back_us = 0.0
        self._lost_us: float | None = None  # when a store was lost that came back empty: then levels are hinted
        self.workers = workers  # live workers of all gateways that share the store
        self.adjusted = 0
        self.misread = 0  # costs that a backend told and that are none
        self.refunded = 0.0  # tokens that the store took after all, and for nothing
        self.owed = 0.0  # tokens that were spent here, and that the store turned out to have refused

    @property
    def leased_keys(self) -> int:
        return self._leasing.keys

    @property
    def held_places(self) -> int:
        """Requests of this worker that hold a place."""
        return len(self._held)

    def share_with(self, workers: int) -> None:
        """How many workers share the limits now, this one included."""
        self.workers = self._leasing.workers = workers

    # -- deciding -----------------------------------------------------------------------------------------------

    async def check(self, limits: RouteLimits, request: Request, now: int, deadline: int = 0) -> LimitVerdict:
        """Begins and waits for the decision."""
        verdict = self.begin(limits, request, now, deadline)
        if verdict.pending is not None:
            await verdict.pending
        return verdict

    def begin(self, limits: RouteLimits, request: Request, now: int, deadline: int = 0) -> LimitVerdict:
        """Takes what the request costs from every limit of the route. Await `pending` unless that is None.

        `deadline` (monotonic nanoseconds) bounds how long a place is held should this worker die.
        """
        self._now = self._leasing.now = now
        route = limits.route
        if len(limits.scopes) == 1:
            keys = [limits.first_key(limits.scopes[0].key(request, route))]
        else:
            keys = [bucket_key(limits.prefixes[i], scope.key(request, route)) for i, scope in enumerate(limits.scopes)]
        verdict = LimitVerdict(self, limits, keys, now)
        if not limits.plain:
            self._vary(verdict, request, deadline)
        if limits.leased and self._leasing.spend(verdict, now):
            return verdict
        if self._lost_us is not None:
            self._hint(verdict, self._lost_us)
        if self._local.owing and not self._is_away:
            self._pay(verdict)
        if not self._store.take(verdict):
            self.lost(verdict)
        return verdict

    def _vary(self, verdict: LimitVerdict, request: Request, deadline: int) -> None:
        """What is not the same for every request of the route."""
        limits = verdict.limits
        if limits.overridden:
            policies = []
            for i, policy in enumerate(limits.policies):
                value = limits.scopes[i].key(request, limits.route) if policy.overrides else b""
                policies.append(policy.overrides.get(value, policy))
            verdict.policies = tuple(policies)
            verdict.shape = limits.packed(policies)
        if limits.varies & COSTS or limits.overridden:
            verdict.costs = [policy.cost.of(request) for policy in verdict.policies]
        if limits.holds:
            self._count += 1
            verdict.member = self._identity + self._count.to_bytes(8, "big")
            verdict.life_ns = min(max(deadline - verdict.now, 0) + GRACE, LONGEST)

    def told(self, verdict: LimitVerdict) -> None:
        """The store's decision is in `verdict`."""
        self._alone_us = None
        now_us = self._now / 1e3
        refused = -1
        if verdict.limits.usual:
            self._local.learn(verdict.keys[0], verdict.levels[0], now_us)
            verdict.allowed = verdict.flags[0] == YES
            if not verdict.allowed:
                verdict.refused = 0
            if verdict.gone:
                self._give_back(verdict)
            return
        for i, policy in enumerate(verdict.policies):
            if not policy.concurrent:
                self._local.learn(verdict.keys[i], verdict.levels[i], now_us)
            if verdict.flags[i] != YES and refused < 0 and not policy.shadow:
                refused = i
        verdict.refused = refused
        verdict.allowed = refused < 0
        if verdict.limits.leased:
            self._leasing.told(verdict)
        if refused < 0 and verdict.limits.holds:
            self._held.hold(verdict, self._now, away=self._is_away)
        if verdict.gone:
            self._give_back(verdict)

    def lost(self, verdict: LimitVerdict) -> None:
        """Decides without the store: by each limit's own word for it."""
        now_us = self._now / 1e3
        if self._alone_us is None:
            self._alone_us = now_us
        verdict.by = ALONE
        asked = verdict.pending is not None
        if asked:
            verdict.reserved = verdict.costs
        levels: list[float] = []
        flags = bytearray()
        refused = -1
        for i, policy in enumerate(verdict.policies):
            cost = verdict.costs[i]
            if policy.on_store_failure != "local":
                fits = policy.on_store_failure == "open"
                level = policy.spec.burst if fits else 0.0
            elif policy.concurrent:
                free = self._held.free(verdict.keys[i], policy.concurrent, self.workers)
                fits, level = free > 0, float(max(0, free - 1))
            else:
                taken = self._local.take(
                    verdict.keys[i], policy.spec, self.workers, now_us, self._alone_us, cost, asked=asked
                )
                fits, level = taken.allowed, taken.tokens
            levels.append(level)
            flags.append(YES if fits else YES - 1)
            if not fits and refused < 0 and not policy.shadow:
                refused = i
        verdict.levels = levels
        verdict.flags = bytes(flags)
        verdict.refused = refused
        verdict.allowed = refused < 0
        if refused >= 0:
            for i, policy in enumerate(verdict.policies):  # or takes from none
                if verdict.flags[i] == YES and not policy.concurrent and policy.on_store_failure == "local":
                    self._local.adjust(verdict.keys[i], verdict.costs[i], asked=asked)
        elif verdict.limits.holds:
            self._held.hold(verdict, self._now, away=self._is_away)
        if verdict.gone:
            self._give_back(verdict)

    def late(self, verdict: LimitVerdict, places: Sequence[int], flags: bytes) -> None:
        """What the store took pays for what was admitted here meanwhile, and comes back if nothing was; what was spent
        here and the store would not give is owed.
        """
        policies = verdict.policies
        admitted = all(flags[at] == YES or policies[i].shadow for at, i in enumerate(places))
        paid = bytearray(verdict.paid or bytes(len(policies)))
        for at, i in enumerate(places):
            policy, key = policies[i], verdict.keys[i]
            took = admitted and flags[at] == YES
            if policy.concurrent:
                if took and not verdict.holding:
                    self._store.release(key, verdict.member)
                continue
            asked = verdict.reserved[i]
            spent = verdict.costs[i] if verdict.allowed else 0.0
            if took:
                paid[i] = YES
                if asked > spent and self._store.adjust(key, policy.spec, asked - spent):
                    self.refunded += asked - spent
            elif spent > 0 and verdict.flags[i] == YES and policy.on_store_failure == "local":
                self._local.owe(key, min(asked, spent))
                self.owed += min(asked, spent)
        verdict.paid = bytes(paid)

    def away(self, now: int) -> None:
        """The store is lost."""
        self._now = self._leasing.now = now
        self._is_away = True
        if self._alone_us is None:
            self._alone_us = now / 1e3

    def back(self, now: int, *, forgot: bool) -> None:
        """The store is there again. If it `forgot` everything, it is told the level of each key with the first ask."""
        self._now = self._leasing.now = now
        self._is_away = False
        if forgot:
            self._back_us = now / 1e3
            self._lost_us = self._back_us if self._alone_us is None else self._alone_us
        self._held.back(now)

    def _hint(self, verdict: LimitVerdict, lost_us: float) -> None:
        for i, policy in enumerate(verdict.policies):
            if not policy.concurrent:
                key = verdict.keys[i]
                level = self._local.hint(key, policy.spec, lost_us, self._back_us, self._now / 1e3)
                if level is not None:
                    self._store.hint(key, policy.spec, level)
                    self._local.paid(key)

    def _pay(self, verdict: LimitVerdict) -> None:
        """The store, there again, is charged with what was spent of these buckets while it was away."""
        for i, policy in enumerate(verdict.policies):
            if not policy.concurrent:
                debt = self._local.owed(verdict.keys[i], policy.spec, self._now / 1e3)
                if debt > 0 and self._store.adjust(verdict.keys[i], policy.spec, -debt):
                    self._local.paid(verdict.keys[i])

    # -- afterwards ---------------------------------------------------------------------------------------------

    def answered(self, verdict: LimitVerdict, response: Response) -> None:
        """Settles by the head of a backend's answer what a limit's cost depends on."""
        for i, policy in enumerate(verdict.policies):
            if policy.cost.settles:
                self._settle(verdict, i, policy.cost.answered(response))

    def end(self, verdict: LimitVerdict, request: Request, *, sent: bool) -> None:
        """The request is over, or was cancelled. What was never `sent` to a backend costs nothing.

        May be called at any time, also while the decision is pending; counts once.
        """
        if verdict.gone:
            return
        verdict.gone = True
        if not verdict.flags:  # undecided: given back when the decision comes
            return
        if not sent:
            self._give_back(verdict)
            return
        if verdict.holding:
            self._held.release(verdict)
        if verdict.allowed and verdict.limits.settles:
            for i, policy in enumerate(verdict.policies):
                if policy.cost.settles:
                    self._settle(verdict, i, policy.cost.ended(request))

    def tick(self, now: int) -> None:
        """A few times a second: ends leases that nobody needs and renews places that are held for long."""
        self._now = self._leasing.now = now
        self._leasing.tick()
        self._held.tick(now, away=self._is_away)

    def return_leases(self) -> None:
        """Gives all leased tokens back: at a reload, and before the worker ends."""
        self._leasing.end()

    def _settle(self, verdict: LimitVerdict, i: int, tokens: float) -> None:
        if tokens < 0 or verdict.flags[i] != YES:
            self.misread += tokens == NONSENSE
            return
        back = verdict.costs[i] - tokens
        if back:
            costs = list(verdict.costs)
            costs[i] = tokens
            verdict.costs = costs
            self._adjust(verdict, i, back)

    def _adjust(self, verdict: LimitVerdict, i: int, back: float) -> None:
        policy = verdict.policies[i]
        levels = list(verdict.levels)
        levels[i] = min(policy.spec.burst, levels[i] + back)
        verdict.levels = levels
        self.adjusted += 1
        shared = verdict.by != ALONE or (verdict.paid and verdict.paid[i] == YES)
        if (not shared or not self._store.adjust(verdict.keys[i], policy.spec, back)) and verdict.by == ALONE:
            self._local.adjust(verdict.keys[i], back, asked=bool(verdict.reserved))

    def _give_back(self, verdict: LimitVerdict) -> None:
        """Everything: the request was not carried out."""
        if verdict.holding:
            self._held.release(verdict)
        if verdict.allowed:
            for i, policy in enumerate(verdict.policies):
                if not policy.concurrent and verdict.flags[i] == YES and verdict.costs[i]:
                    self._adjust(verdict, i, verdict.costs[i])
            if verdict.by == ALONE:
                verdict.costs = [0.0] * len(verdict.costs)  # for a store that was late, and will say what it took
