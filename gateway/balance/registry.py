"""The name a policy has in the configuration, and how to make one."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from gateway.balance.hashing import BOUND, Key
from gateway.balance.least_request import CHOICES, LeastRequest
from gateway.balance.maglev import Maglev
from gateway.balance.peak_ewma import DECAY, PeakEwma
from gateway.balance.policy import Balancer, Rand
from gateway.balance.prequal import HOT, Prequal
from gateway.balance.random import Random
from gateway.balance.ring_hash import RingHash
from gateway.balance.weighted_round_robin import WeightedRoundRobin


@dataclass(frozen=True, slots=True)
class Settings:
    """What some of the policies can be told: `key` and `bound` those that hash, `choices` least-request, `decay`
    (nanoseconds) peak-ewma, `hot` prequal.
    """

    key: Key = field(default_factory=Key)
    bound: float = BOUND
    choices: int = CHOICES
    decay: float = DECAY
    hot: float = HOT


BALANCERS: Final[dict[str, Callable[[Settings, Rand], Balancer]]] = {
    "least-request": lambda settings, rand: LeastRequest(rand, settings.choices),
    "maglev": lambda settings, rand: Maglev(rand, settings.key, settings.bound),
    "peak-ewma": lambda settings, rand: PeakEwma(rand, settings.decay),
    "prequal": lambda settings, rand: Prequal(rand, settings.hot),
    "random": lambda _, rand: Random(rand),
    "ring-hash": lambda settings, rand: RingHash(rand, settings.key, settings.bound),
    "weighted-round-robin": lambda _, rand: WeightedRoundRobin(rand),
}


class Recipe:
    """A policy with its settings, of which a pool makes one for each of its groups."""

    def __init__(self, name: str, settings: Settings | None = None, rand: Rand = random.random) -> None:
        self._make = BALANCERS[name]
        self._settings = settings or Settings()
        self._rand = rand

    def __call__(self) -> Balancer:
        return self._make(self._settings, self._rand)
