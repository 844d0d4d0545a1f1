"""What the policies that hash have in common: the key, the bound, and where a request goes that cannot go home.

A key always comes to the same candidate, in every worker and gateway and after every reload: hashes are of the
candidates' identities and of nothing else. The table is over all members and made when they or their weights change;
a member that is away keeps its places, and only *its* keys move: each makes jumps of its own over the table until it
meets somebody who is there. So they are spread over all, and come back when their home does.

Bounded load: nobody takes more than `bound` times its fair part of what is in flight, rounded up; what is above jumps
on (Mirrokni, Thorup, Zadimoghaddam 2016, "Consistent hashing with bounded loads"; jumps at random rather than to the
neighbour: Chen, Coleman, Shrivastava 2021). So a hot key, or a caller who picks keys on purpose, cannot drown one
backend. Slow start: a candidate that may have a part of its weight gets that part of its keys, always the same ones.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final
from zlib import crc32

from gateway.balance.policy import Balancer, Candidate, Rand
from gateway.request import Request

BOUND: Final = 1.25
JUMPS: Final = 64  # then whoever is there next in the pool's order: with half of them away, one key in 2^64
_FULL: Final = 0xFFFFFFFF


class Key:
    """What a request is known by: `kind` is client, ip, path, header or cookie, `name` that of the last two."""

    __slots__ = ("_kind", "_name")

    def __init__(self, kind: str = "client", name: bytes = b"") -> None:
        self._kind = kind
        self._name = name

    def of(self, request: Request) -> bytes:
        """Empty if the request has none."""
        kind = self._kind
        if kind == "client":
            return request.client or request.peer
        if kind == "header":
            return request.headers.get(self._name, b"")
        if kind == "cookie":
            return request.cookie(self._name)
        return request.path if kind == "path" else request.peer


class Hashing(Balancer):
    """A subclass has `build` and `find`. `bound` is at least 1."""

    __slots__ = ("_fullest", "_key", "_ready", "_total", "bound", "built", "members")

    def __init__(self, rand: Rand = random.random, key: Key | None = None, bound: float = BOUND) -> None:
        super().__init__(rand)
        self._key = Key() if key is None else key
        self.bound = bound
        self.members: list[Candidate] = []
        self.built: list[tuple[bytes, int]] = []
        self._ready: list[Candidate] = []
        self._total = 0.0
        self._fullest = 1.0

    def build(self) -> None:
        """Makes the table over `members`, all of which have weight."""
        raise NotImplementedError

    def adopt(self, before: Hashing) -> None:
        """Takes the table of one of its own kind, which was made for the same members."""
        raise NotImplementedError

    def find(self, hashed: int) -> Candidate:
        """Whose place in the table a hash of 32 bits falls on."""
        raise NotImplementedError

    def inherit(self, before: Balancer) -> None:
        if isinstance(before, Hashing) and type(before) is type(self):
            self.members = before.members
            self.built = before.built
            self.adopt(before)

    def settle(self, members: Sequence[Candidate]) -> None:
        weighty = sorted([member for member in members if member.weight], key=_identity)
        built = [(member.identity, member.weight) for member in weighty]
        if built != self.built or weighty != self.members or not built:  # a backend may have gone and come back anew
            self.members = weighty
            self.built = built
            self.build()
        self._ready = [member for member in members if member.share > 0.0]
        self._total = 0.0
        self._fullest = 0.0
        for member in self._ready:
            self._total += member.share
            self._fullest = max(self._fullest, member.share / member.weight)

    def point(self, request: Request) -> float:
        key = self._key.of(request)
        return (crc32(key, 1) & _FULL) / 4294967296.0 if key else self.rand()

    def pick(self, request: Request, tried: Sequence[Candidate], total: int, now: int) -> Candidate | None:  # noqa: ARG002
        if not self._ready:
            return None
        key = self._key.of(request)
        hashed = crc32(key) & _FULL if key else int(self.rand() * 4294967296.0)
        fair = self.bound * (total + 1) / self._total
        spare: Candidate | None = None  # there, but over its bound
        for _ in range(JUMPS):
            found = self.find(hashed)
            share = found.share
            if share > 0.0 and not (tried and found in tried):
                part = share / (found.weight * self._fullest)
                if part >= 1.0 or (hashed >> 7 & 0xFFFF) < part * 65536.0:
                    if found.inflight < fair * share:  # that is, at most the bound, rounded up
                        return found
                    if spare is None:
                        spare = found
            hashed = hashed * 1664525 + 1013904223 & _FULL
        if spare is not None:
            return spare
        ready = self._ready
        start = hashed % len(ready)
        for step in range(len(ready)):
            found = ready[(start + step) % len(ready)]
            if not (tried and found in tried):
                return found
        return None


def _identity(candidate: Candidate) -> bytes:
    return candidate.identity
