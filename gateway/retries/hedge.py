"""When a request is late enough to be asked of a second backend as well.

After a fixed time, or after a percentile of the recent latencies of the route at its pool: after p95, one request in
twenty is hedged, and what it costs is bounded by the pool's budget besides. As long as too few latencies are known
nothing is hedged. Source: Dean and Barroso, "The Tail at Scale" (CACM 2013), "hedged requests".
"""

from __future__ import annotations

from gateway.retries.latencies import Latencies


class HedgeRules:
    """Of one route at one pool: at most `most` hedges a request, each `after` nanoseconds later or at the percentile
    `share` (above 0 where it is wanted, else `after` counts).
    """

    __slots__ = ("after", "latencies", "most", "share")

    def __init__(self, latencies: Latencies, *, after: int = 0, share: float = 0.0, most: int = 1) -> None:
        self.latencies = latencies
        self.after = after
        self.share = share
        self.most = most

    def delay(self, now: int) -> int:
        """Nanoseconds after which a hedge may be sent; 0: none may."""
        return self.latencies.percentile(self.share, now) if self.share else self.after
