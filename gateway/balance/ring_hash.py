"""Consistent hashing on a ring: every candidate stands at many points of a circle of 32 bits, in number by its weight,
and a key belongs to who stands next. A candidate that comes or goes takes or leaves its own arcs, and nothing else
moves (Karger et al. 1997; points as in libketama and Envoy's ring hash).
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_right
from typing import Final

from gateway.balance.hashing import Hashing
from gateway.balance.policy import Candidate

#: Points of a candidate with the largest weight, by the number of candidates: 4096 make a share right to 3 % of itself
#: (2 sigma). Who crosses a line has all its keys placed anew, so there are few.
POINTS: Final = ((16, 4096), (128, 512), (1 << 30, 64))
SHIFT: Final = 20  # the circle is looked up by its 4,096 slices first: a search over all points is slow on cold caches
SLICES: Final = 1 << 32 - SHIFT


class RingHash(Hashing):
    __slots__ = ("owners", "points", "starts")

    def build(self) -> None:
        members = self.members
        most = max([member.weight for member in members], default=1)
        points = next(points for size, points in POINTS if len(members) <= size)
        stands = array("Q")  # a point, and below it whose it is
        for number, member in enumerate(members):
            count = max(round(points * member.weight / most), 1)
            for block in range(0, count, 16):
                digest = hashlib.blake2b(b"%b %d" % (member.identity, block)).digest()  # 64 bytes: 16 points
                for at in range(0, 4 * min(16, count - block), 4):
                    stands.append(int.from_bytes(digest[at : at + 4], "big") << 32 | number)
        ordered = sorted(stands)
        self.points: list[int] = [stand >> 32 for stand in ordered]
        self.owners: list[Candidate] = [members[stand & 0xFFFFFFFF] for stand in ordered]
        starts: list[int] = []
        at = 0
        for slice_ in range(SLICES + 1):
            while at < len(ordered) and self.points[at] >> SHIFT < slice_:
                at += 1
            starts.append(at)
        self.starts = starts

    def adopt(self, before: Hashing) -> None:
        assert isinstance(before, RingHash)
        self.points, self.owners, self.starts = before.points, before.owners, before.starts

    def find(self, hashed: int) -> Candidate:
        part = hashed >> SHIFT
        at = bisect_right(self.points, hashed, self.starts[part], self.starts[part + 1])
        return self.owners[at if at < len(self.owners) else 0]
