"""The script under a clock of ours, and a model of it in Python that shares no code with it but the arithmetic."""

from __future__ import annotations

import struct

from gateway.limits.bucket import BucketSpec, refill
from gateway.limits.policy import PLACES, SHADOW
from gateway.store import program
from gateway.store.buckets import SCRIPT

#: The same script under a clock of ours, in microseconds.
CLOCKED = SCRIPT.replace(b"redis.call('TIME')", b"{ARGV[2], ARGV[3]}")


def limit(rate, burst, cost=1.0, kind=0):
    return struct.pack("<Bddd", kind, rate, burst, cost)


class Call:
    """One call, put together operation by operation."""

    def __init__(self):
        self.keys, self.parts, self.asks, self.leases = [], [], 0, 0

    def take(self, *rows, varies=0, shape=()):
        """`rows`: each a list of keys, or (keys, costs), (keys, member, life) or (keys, costs, member, life)."""
        self.parts.append(program.head(program.TAKE, len(rows), len(shape)) + bytes((varies,)) + b"".join(shape))
        for row in rows:
            keys, *rest = row if varies else (row,)
            self.keys += keys
            if varies & 1:
                self.parts.append(program.costs(rest.pop(0)))
            if varies & 2:
                self.parts.append(rest[0] + program.lifetime(rest[1]))
            self.asks += len(keys)
        return self

    def each(self, operation, *entries):
        """`entries`: key and its numbers as bytes."""
        self.parts.append(program.head(operation, len(entries), 1))
        for key, numbers in entries:
            self.keys.append(key)
            self.parts.append(numbers)
        self.leases += operation == program.LEASE and len(entries)
        return self

    def run(self, client, now=None):
        """Levels with flags of the asks, and (granted, level) of the leases."""
        clock = [] if now is None else [now // 1_000_000, now % 1_000_000]
        reply = client.eval(
            SCRIPT if now is None else CLOCKED, len(self.keys), *self.keys, b"".join(self.parts), *clock
        )
        doubles = self.asks + 2 * self.leases
        assert len(reply) == doubles * 8 + self.asks
        numbers = program.numbers(reply, doubles)
        flags = [flag == ord("1") for flag in reply[doubles * 8 :]]
        asked = list(zip(flags, numbers[: self.asks], strict=True))
        leased = numbers[self.asks :]
        return (asked, list(zip(leased[::2], leased[1::2], strict=True))) if self.leases else asked


class Model:
    """Sequential buckets and places, one operation after the other."""

    def __init__(self):
        self.buckets = {}  # key: (tokens, stamp)
        self.places = {}  # key: {member: expiry}
        self.members = []

    def refilled(self, key, spec, now):
        if key not in self.buckets:
            return spec.burst
        tokens, stamp = self.buckets[key]
        if stamp > now:  # the clock went back: from here on
            self.buckets[key] = (tokens, now)
        return refill(spec, tokens, now - stamp)

    def set(self, key, spec, tokens, now):
        self.buckets[key] = (tokens, now)

    def take(self, asks, now, member=b"", life=0):
        """`asks`: (key, kind, spec, cost)."""
        levels, fits = [], []
        for key, kind, spec, cost in asks:
            if kind & PLACES:
                held = self.places.setdefault(key, {})
                for name in [name for name, end in held.items() if end <= now]:
                    del held[name]
                levels.append(spec.burst - len(held))
                fits.append(len(held) + 1 <= spec.burst)
            else:
                levels.append(self.refilled(key, spec, now))
                fits.append(levels[-1] >= cost)
        admitted = all(fit or kind & SHADOW for fit, (_, kind, _, _) in zip(fits, asks, strict=True))
        for i, (key, kind, spec, cost) in enumerate(asks):
            if not (admitted and fits[i]):
                continue
            if kind & PLACES:
                self.places[key][member] = now + life
                levels[i] -= 1
            else:
                levels[i] -= cost
                self.set(key, spec, levels[i], now)
        return list(zip(fits, levels, strict=True))

    def adjust(self, key, spec, tokens, now):
        self.set(key, spec, min(spec.burst, self.refilled(key, spec, now) + tokens), now)

    def lease(self, key, spec, want, now):
        have = self.refilled(key, spec, now)
        granted = float(int(max(0.0, min(want, have))))
        if granted:
            self.set(key, spec, have - granted, now)
        return granted, have - granted

    def hint(self, key, spec, level, now):
        if level < self.refilled(key, spec, now):
            self.set(key, spec, level, now)


__all__ = ["BucketSpec", "Call", "Model", "limit"]
