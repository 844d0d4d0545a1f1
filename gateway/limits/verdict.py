"""One request's decision: the limits of its route made ready, and what becomes of it until the request ends.

Whoever decides (the store, a part of a cluster, the worker alone) tells the verdict; the verdict says what a client
is told of it. Pure: nothing here waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gateway.limits.memory import Memory
from gateway.limits.policy import LimitPolicy
from gateway.limits.scopes import bucket_key
from gateway.promise import Promise

YES: Final = 49  # what a flag of the reply says, as the digits 1 and 0
SHARED: Final = 0  # who decided
ALONE: Final = 1
LEASED: Final = 2
COSTS: Final = 1  # what varies from row to row, as the script reads it
MEMBERS: Final = 2


class RouteLimits:
    """The limits of one route, with everything constant built once. `key_prefix` begins every key in the store; keys
    are kept ready in `memory`.
    """

    def __init__(
        self, route: str, policies: Sequence[LimitPolicy], key_prefix: str, memory: Memory | None = None
    ) -> None:
        self.route = route.encode()
        self.policies = tuple(policies)
        self.prefixes = [f"{key_prefix}:{policy.name}:".encode() for policy in policies]
        self.scopes = [policy.scope for policy in policies]
        self._memory = Memory() if memory is None else memory
        self._keys = self._memory.part(self.prefixes[0])  # of the first limit, by what it is keyed by
        self.costs = [policy.cost.tokens for policy in policies]
        self.yes = b"1" * len(self.policies)
        self.settles = any(policy.cost.settles for policy in policies)
        self.holds = any(policy.concurrent for policy in policies)
        self.varies = MEMBERS if self.holds else 0
        if not all(policy.cost.constant for policy in policies):
            self.varies |= COSTS
        self.overridden = any(policy.overrides for policy in policies)
        self.plain = not self.varies and not self.overridden
        self.leased = all(policy.leased for policy in policies)
        only = self.policies[0]
        self.usual = len(self.policies) == 1 and not (only.leased or only.concurrent or only.shadow)
        self.shape = self.packed(self.policies)
        spoken = [policy for policy in policies if not policy.shadow]
        self.silent = not spoken
        self.simple = len(spoken) == len(self.policies) == 1 and not spoken[0].partition
        self.partition = any(policy.partition for policy in spoken)
        self.policy_header = b", ".join([policy.policy_header() for policy in spoken])
        self.legacy = next((p for p in spoken if p.legacy_headers), None)

    def first_key(self, value: bytes) -> bytes:
        """The key in the store of the first limit, for `value` of its scope."""
        key = self._keys.get(value)
        if key is None:
            key = bucket_key(self.prefixes[0], value)
            self._memory.keep(self._keys, value, key)
        return key

    def packed(self, policies: Sequence[LimitPolicy]) -> bytes:
        """What the script must know of them."""
        return bytes((self.varies,)) + b"".join([policy.packed for policy in policies])


class Decider:
    """Who makes a verdict of what the store says, or of its silence."""

    def told(self, verdict: LimitVerdict) -> None:
        raise NotImplementedError

    def lost(self, verdict: LimitVerdict) -> None:
        raise NotImplementedError

    def late(self, verdict: LimitVerdict, places: Sequence[int], flags: bytes) -> None:
        """After `lost`: what the store decided for the limits at these places, and did."""
        raise NotImplementedError


class LimitVerdict:
    """One request's decision over all limits of its route, and what it holds until it ends.

    `policies`, `keys`, `costs`, `levels` (tokens or places left) and `flags` (1 or 0, as digits: would this limit alone
    admit it) are parallel. `pending` is awaited while the store is asked; `by` says who decided. `reserved`: the costs
    that a store which did not answer in time was asked for; `paid`: those limits for which it took them all the same.
    """

    __slots__ = (
        "_owner", "allowed", "by", "costs", "flags", "gone", "holding", "keys", "levels", "life_ns", "limits", "member",
        "now", "paid", "pending", "policies", "refused", "reserved", "shape",
    )  # fmt: skip

    def __init__(self, owner: Decider, limits: RouteLimits, keys: list[bytes], now: int) -> None:
        self._owner = owner
        self.limits = limits
        self.policies = limits.policies
        self.keys = keys
        self.costs = limits.costs
        self.shape = limits.shape
        self.now = now
        self.pending: Promise[None] | None = None
        self.levels: Sequence[float] = ()
        self.flags = b""
        self.allowed = False
        self.refused = -1  # the place of the first limit that refused
        self.by = SHARED
        self.gone = False  # the request ended before the decision came
        self.holding = False
        self.member = b""
        self.life_ns = 0
        self.reserved: Sequence[float] = ()
        self.paid = b""

    # -- what the store calls -----------------------------------------------------------------------------------

    def told(self, levels: Sequence[float], flags: bytes) -> None:
        """The store's decision."""
        self.levels = levels
        self.flags = flags
        self._owner.told(self)

    def lost(self) -> None:
        """The store is away, or did not answer in time."""
        self._owner.lost(self)

    def late(self, flags: bytes, places: Sequence[int] | None = None) -> None:
        """The store's decision (for the limits at these places), when another has been made."""
        self._owner.late(self, range(len(flags)) if places is None else places, flags)

    # -- what is said of it -------------------------------------------------------------------------------------

    @property
    def refused_by(self) -> LimitPolicy | None:
        """The first limit that refused, in the order of the route."""
        return None if self.refused < 0 else self.policies[self.refused]

    def hopeless(self) -> int:
        """The place of the first limit that can never admit this: it costs more than the whole burst; -1 if none."""
        for i, policy in enumerate(self.policies):
            if not policy.concurrent and not policy.shadow and self.costs[i] > policy.spec.burst:
                return i
        return -1

    def retry_after(self) -> int:
        """Whole seconds until a refused request can be admitted."""
        i = self.refused
        return self.policies[i].seconds(self.levels[i], self.costs[i])

    def policy_header(self) -> bytes:
        """The RateLimit-Policy field; empty where only shadows limit."""
        limits = self.limits
        if not limits.partition and not limits.overridden:
            return limits.policy_header
        return b", ".join([p.policy_header(self.keys[i]) for i, p in enumerate(self.policies) if not p.shadow])

    def left_header(self) -> bytes:
        """The RateLimit field: what is left in each bucket."""
        if self.limits.simple:
            return self.policies[0].left_header(self.levels[0], allowed=self.flags[0] == YES, cost=self.costs[0])
        return b", ".join([
            p.left_header(self.levels[i], allowed=self.flags[i] == YES, cost=self.costs[i], key=self.keys[i])
            for i, p in enumerate(self.policies)
            if not p.shadow
        ])  # fmt: skip

    def mode(self) -> bytes:
        """How it was decided without the store: local, open or closed, as the first limit has it."""
        for policy in self.policies:
            if not policy.shadow:
                return policy.on_store_failure.encode()
        return b"local"
