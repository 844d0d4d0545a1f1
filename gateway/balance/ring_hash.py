"""Consistent hashing on a ring: every candidate stands at many points of a circle of 32 bits, in number by its weight,
and a key belongs to who stands next. A candidate that comes or goes takes or leaves its own arcs, and nothing else
moves (Karger et al. 1997; points as in libketama and Envoy's ring hash).
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from typing import Final

from gateway.balance.hashing import Hashing
from gateway.balance.policy import Candidate

POINTS: Final = 1 << 15  # on the ring in all, about: with 8 candidates a share is off by a fortieth of itself (2 sigma)


class RingHash(Hashing):
    __slots__ = ("_owners", "_points")

    def build(self) -> None:
        self._points: list[int] = []
        self._owners: list[Candidate] = []
        total = sum([member.weight for member in self.members])
        stands: list[tuple[int, int]] = []
        for number, member in enumerate(self.members):
            # The first points of a candidate are always the same, so a change of their number moves little.
            count = max(round(POINTS * member.weight / total), 1)
            for block in range(0, count, 16):
                digest = hashlib.blake2b(b"%b %d" % (member.identity, block)).digest()  # 64 bytes: 16 points
                for at in range(min(16, count - block)):
                    stands.append((int.from_bytes(digest[4 * at : 4 * at + 4], "big"), number))
        stands.sort()
        self._points = [point for point, _ in stands]
        self._owners = [self.members[number] for _, number in stands]

    def find(self, hashed: int) -> Candidate:
        at = bisect_right(self._points, hashed)
        return self._owners[at if at < len(self._owners) else 0]
