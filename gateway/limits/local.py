"""This worker's own buckets, for the time the shared store is away.

Each of N live workers spends 1/N of the rate and burst. A bucket starts from the last level the store told us
(divided by N too), so that losing the store does not hand out a second burst. Bounded: two generations of at most
`capacity` keys; the older one is dropped whole when the younger fills.
"""

from __future__ import annotations

from gateway.limits.bucket import BucketSpec, Taken, take


class LocalBuckets:
    """Levels by key; `now_us` is monotonic microseconds."""

    def __init__(self, capacity: int = 50_000) -> None:
        self._capacity = capacity
        self._young: dict[bytes, tuple[float, float, int]] = {}
        self._old: dict[bytes, tuple[float, float, int]] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def learn(self, key: bytes, tokens: float, now_us: float) -> None:
        """Remembers the shared level of `key`, as the store just told it."""
        young = self._young
        young[key] = (tokens, now_us, 1)
        if len(young) >= self._capacity:
            self._turn()

    def take(
        self, key: bytes, spec: BucketSpec, workers: int, now_us: float, alone_us: float, cost: float = 1.0
    ) -> Taken:
        """Decides alone, with a share of 1/`workers`; `alone_us` is when the store was lost.

        What a bucket gained before that may have been spent through another worker, so nobody is credited with it:
        a level the store told is the start, a key it told nothing of starts with one request's worth.
        A share smaller than one request would never admit anything, so a local bucket holds at least `cost`.
        """
        share = BucketSpec(spec.rate / workers, max(spec.burst / workers, cost))
        known = self._young.get(key) or self._old.get(key)
        if known is None:
            tokens, since, parts = cost, alone_us, workers
        else:
            tokens, since, parts = known
            if parts != workers:  # a level learnt from the store (1) or under another number of workers
                tokens = tokens * parts / workers
                since = max(since, alone_us)
        taken = take(share, tokens, now_us - since, cost)
        self._young[key] = (taken.tokens, now_us, workers)
        if len(self._young) >= self._capacity:
            self._turn()
        return taken

    def _turn(self) -> None:
        self._old = self._young
        self._young = {}
