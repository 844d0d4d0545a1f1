"""The name a policy has in the configuration, and how to make one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gateway.balance import Balancer
from gateway.balance.least_request import LeastRequest
from gateway.balance.weighted_round_robin import WeightedRoundRobin

BALANCERS: Final[dict[str, Callable[[], Balancer]]] = {
    "least-request": LeastRequest,
    "weighted-round-robin": WeightedRoundRobin,
}
