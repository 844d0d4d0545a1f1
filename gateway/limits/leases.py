"""Tokens taken in advance: a worker spends them without asking anybody, and gives back what it does not need.

A busy key gets a lease: whole tokens that are out of the shared bucket before the first of them is spent, so that all
workers together never admit more than the bucket allows. Its size follows the key's demand (what `HORIZON` seconds
need) and is bounded by a share of the burst; the next one is asked for when half is left, so that nobody waits for it.
When the bucket is empty the worker refuses by itself for a short while. A lease ends `LIFE` seconds after the last
tokens came; what is left then is given back. Tokens of which nothing was heard (the store was lost on the way)
are taken for spent; those of which something is heard late are not.

Precedent: the token leases of Amazon's DynamoDB global admission control (Elhemali et al., USENIX ATC 2022).
Pure: `now` is monotonic nanoseconds, asking and giving back go through the limiter.
"""

from __future__ import annotations

from typing import Final

WINDOW: Final = 100_000_000  # nanoseconds over which demand is counted
BUSY: Final = 3  # requests within a window that make a key busy
HORIZON: Final = 0.25  # seconds of demand that a lease holds
LIFE: Final = 1_000_000_000  # nanoseconds
CALLS: Final = 40.0  # requests that one call to the store is to serve, at least
SHORTEST: Final = 2_000_000  # nanoseconds a worker refuses by itself, and at most
LONGEST: Final = 100_000_000
MOST: Final = 4096  # keys with a lease, per worker
WATCHED: Final = 20_000  # keys whose demand is counted, per window


class Lease:
    """The tokens of one key at this worker. `level` is what the bucket last said it holds besides."""

    __slots__ = (
        "asked", "burst", "count", "demand", "end", "key", "level", "level_at", "low", "rate", "refused_until", "short",
        "spent_at", "tokens", "want", "window",
    )  # fmt: skip

    def __init__(self, key: bytes, rate: float, burst: float, now: int) -> None:
        self.key = key
        self.rate = rate
        self.burst = burst
        self.tokens = 0.0
        self.level = 0.0
        self.level_at = now
        self.low = 0.0  # below it more is asked for
        self.end = now + LIFE
        self.asked = False
        self.want = 0.0  # what was asked for
        self.short = False  # the bucket had less than that
        self.refused_until = 0
        self.spent_at = now
        self.window = now  # when the window that is counted began, and what was asked for in it
        self.count = 0.0
        self.demand = BUSY / (WINDOW / 1e9)  # tokens per second, smoothed

    def note(self, cost: float, now: int) -> None:
        """Counts what is asked for, whether it is admitted or not."""
        self.spent_at = now
        passed = now - self.window
        if passed >= WINDOW:
            rate = self.count / passed * 1e9
            self.demand = rate if rate > self.demand else (self.demand + rate) / 2
            self.window = now
            self.count = 0.0
        self.count += cost

    def wanted(self, workers: int) -> float:
        """Tokens to ask for: the demand of the horizon, at most this worker's part of half the burst."""
        most = self.burst / (2 * workers)
        wish = self.demand * HORIZON
        wish = min(wish, most)
        return max(1.0, wish) - self.tokens

    def came(self, granted: float, level: float, now: int) -> None:
        """What the store gave."""
        self.asked = False
        self.tokens += granted
        self.level = level
        self.level_at = now
        if granted > 0:
            self.end = now + LIFE
            self.low = self.tokens / 2
        if granted + 1.0 <= self.want:
            self.pause(now)
        else:
            self.short = False

    def found(self, granted: float, now: int) -> None:
        """What the store gave, heard of when nobody expected it any more."""
        if granted > 0:
            self.tokens += granted
            self.end = now + LIFE
            self.low = self.tokens / 2

    def pause(self, now: int) -> None:
        """The bucket is empty: nobody is asked while `CALLS` requests come. It must not fill meanwhile, though."""
        self.short = True
        pause = min(CALLS / max(self.demand, 1.0), self.burst / self.rate / 4) * 1e9
        self.refused_until = now + int(min(max(pause, SHORTEST), LONGEST))

    def refuses(self, now: int) -> bool:
        """Whether a request for which there are no tokens here is refused without asking."""
        return self.short and (self.asked or self.refused_until > now)

    def left(self, now: int) -> float:
        """Tokens here and, as far as is known, in the bucket."""
        level = self.level + (now - self.level_at) * self.rate / 1e9
        return self.tokens + (min(self.burst, level))


class LeaseBook:
    """The leases of one worker, by key; bounded."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._leases: dict[bytes, Lease] = {}
        self._watched: dict[bytes, int] = {}
        self._window = 0

    def __len__(self) -> int:
        return len(self._leases)

    def find(self, key: bytes, rate: float, burst: float, now: int) -> Lease | None:
        """The key's lease; one is opened when the key is busy. None: it is not, or there are too many."""
        lease = self._leases.get(key)
        if lease is not None:
            return lease
        watched = self._watched
        if now - self._window >= WINDOW or len(watched) >= WATCHED:
            self._watched = watched = {}
            self._window = now
        seen = watched.get(key, 0) + 1
        watched[key] = seen
        if seen < BUSY or len(self._leases) >= self._most or burst < 2.0:
            return None
        lease = self._leases[key] = Lease(key, rate, burst, now)
        return lease

    def get(self, key: bytes) -> Lease | None:
        """The key's lease, if there is one."""
        return self._leases.get(key)

    def ended(self, now: int) -> list[Lease]:
        """Takes out the leases that are over: what they hold is to be given back."""
        over = [lease for lease in self._leases.values() if now > lease.end or now - lease.spent_at > LIFE // 2]
        for lease in over:
            del self._leases[lease.key]
        return over

    def all(self) -> list[Lease]:
        """Takes out every lease."""
        over = list(self._leases.values())
        self._leases = {}
        return over
