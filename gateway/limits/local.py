"""What this worker knows and decides by itself, for the time the shared store is away.

Each of N live workers spends 1/N of the rate and burst, or holds 1/N of the places. A bucket starts from the last
level the store told us (divided by N too), so that losing the store does not hand out a second burst. When the store
is back it is charged with what was spent meanwhile (a debt). Bounded: two
generations of at most `capacity` keys; the older one is dropped whole when the younger fills.
"""

from __future__ import annotations

from typing import Final

from gateway.limits.bucket import BucketSpec, Taken, refill, take

TOLD: Final = 0  # in the place of a number of workers: the level is the whole bucket's, as the store said


class LocalBuckets:
    """Levels by key; `now_us` is monotonic microseconds."""

    def __init__(self, capacity: int = 50_000) -> None:
        self._capacity = capacity
        # By key: tokens, when that was (microseconds), parts or TOLD, and the debt.
        self._young: dict[bytes, tuple[float, float, int, float]] = {}
        self._old: dict[bytes, tuple[float, float, int, float]] = {}
        self.owing = False  # whether there was ever a debt

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def learn(self, key: bytes, tokens: float, now_us: float) -> None:
        """Remembers the shared level of `key`, as the store just told it."""
        young = self._young
        young[key] = (tokens, now_us, TOLD, 0.0)
        if len(young) >= self._capacity:
            self._turn()

    def take(
        self,
        key: bytes,
        spec: BucketSpec,
        workers: int,
        now_us: float,
        alone_us: float,
        cost: float = 1.0,
        *,
        asked: bool = False,
    ) -> Taken:
        """Decides alone, with a share of 1/`workers`; `alone_us` is when the store was lost.

        What a bucket gained before that may have been spent through another worker, so nobody is credited with it:
        a level the store told is the start, a key it told nothing of starts with one request's worth.
        A share smaller than one request would never admit anything, so a local bucket holds at least `cost`, unless
        even the whole bucket does not. `asked`: the store has the question, and probably took the cost already.
        """
        share = self._share(spec, workers, cost)
        known = self._young.get(key) or self._old.get(key)
        debt = 0.0
        if known is None:
            tokens, since, parts = min(cost, spec.burst), alone_us, workers
        else:
            tokens, since, parts, debt = known
            if parts != workers:  # a level learnt from the store or under another number of workers
                tokens = tokens * (parts or 1) / workers
                since = max(since, alone_us)
        taken = take(share, tokens, now_us - since, cost)
        unspent = refill(share, tokens + debt, now_us - since)
        debt = max(0.0, unspent - taken.tokens)
        if asked and taken.allowed:
            debt = max(0.0, debt - cost)
        self.owing = self.owing or debt > 0
        self._young[key] = (taken.tokens, now_us, workers, debt)
        if len(self._young) >= self._capacity:
            self._turn()
        return taken

    @staticmethod
    def _share(spec: BucketSpec, workers: int, cost: float) -> BucketSpec:
        return BucketSpec(spec.rate / workers, max(spec.burst / workers, min(cost, spec.burst)))

    def adjust(self, key: bytes, tokens: float, *, asked: bool = False) -> None:
        """Gives back (or charges, if negative) what a request took here and did not cost (or cost besides).

        Of a request about which the store was `asked` nothing was a debt, so giving it back makes none less.
        """
        known = self._young.get(key) or self._old.get(key)
        if known is not None and known[2] != TOLD:
            debt = known[3] if asked and tokens > 0 else max(0.0, known[3] - tokens)
            self.owing = self.owing or debt > 0
            self._young[key] = (known[0] + tokens, known[1], known[2], debt)

    def owe(self, key: bytes, tokens: float) -> None:
        """The store was asked and did not give what a request took here."""
        known = self._young.get(key) or self._old.get(key)
        if known is not None:
            self.owing = True
            self._young[key] = (known[0], known[1], known[2], known[3] + tokens)

    def owed(self, key: bytes, spec: BucketSpec, now_us: float) -> float:
        """What the store is to be charged for `key`: by how much more it would hold had nothing been spent here."""
        known = self._young.get(key) or self._old.get(key)
        if known is None or known[3] <= 0:
            return 0.0
        tokens, since, parts, debt = known
        share = self._share(spec, parts or 1, 0.0)
        return max(0.0, refill(share, tokens + debt, now_us - since) - refill(share, tokens, now_us - since))

    def paid(self, key: bytes) -> None:
        """The store knows of the debt."""
        known = self._young.get(key) or self._old.get(key)
        if known is not None:
            self._young[key] = (known[0], known[1], known[2], 0.0)

    def hint(self, key: bytes, spec: BucketSpec, lost_us: float, back_us: float, now_us: float) -> float | None:
        """The most that the whole bucket can hold as far as this worker knows, if the store, lost at `lost_us` and back
        empty at `back_us`, has not told of it since. None: that is nothing new.

        What others may have spent of it since is in their hints; the lowest counts.
        """
        known = self._young.get(key) or self._old.get(key)
        if known is None or known[1] > (lost_us if known[2] == TOLD else back_us):
            return None
        level = refill(spec, known[0] * (known[2] or 1), now_us - known[1])
        return level if level < spec.burst else None

    def _turn(self) -> None:
        self._old = self._young
        self._young = {}


class LocalPlaces:
    """Requests of this worker that hold a place, by key; counted while the store is there, too."""

    def __init__(self) -> None:
        self._held: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._held)

    def free(self, key: bytes, most: int, workers: int) -> int:
        """Places that are left to this worker: its share of `most`, at least one, less what it holds."""
        return max(1, most // workers) - self._held.get(key, 0)

    def hold(self, key: bytes) -> None:
        self._held[key] = self._held.get(key, 0) + 1

    def release(self, key: bytes) -> None:
        left = self._held.get(key, 0) - 1
        if left > 0:
            self._held[key] = left
        else:
            self._held.pop(key, None)
