"""Maglev: consistent hashing by a table in which every candidate has its exact share of places.

Each candidate goes through all places in an order of its own and takes the first free one when it is its turn; turns
are by weight. Shares are exact to one place, which a ring's are not, and finding is one look; a member that comes or
goes moves a few keys besides its own.
Source: Eisenbud et al. 2016, "Maglev: a fast and reliable software network load balancer", section 3.4; weights as in
Envoy's.
"""

from __future__ import annotations

import hashlib
from typing import Final

from gateway.balance.hashing import Hashing
from gateway.balance.policy import Candidate

PLACES: Final = 65_537  # prime, and the paper's: 1 % of a share with 655 candidates


class Maglev(Hashing):
    __slots__ = ("table",)

    def build(self) -> None:
        members = self.members
        self.table: list[Candidate] = []
        if not members:
            return
        size = PLACES
        at: list[int] = []
        step: list[int] = []
        for member in members:
            digest = hashlib.blake2b(member.identity, digest_size=16).digest()
            at.append(int.from_bytes(digest[:6], "big") % size)
            step.append(int.from_bytes(digest[8:14], "big") % (size - 1) + 1)
        owner: list[int] = [-1] * size
        most = max([member.weight for member in members])
        credit: list[int] = [0] * len(members)
        taken = 0
        while taken < size:
            for number, member in enumerate(members):
                credit[number] += member.weight
                if credit[number] < most:
                    continue
                credit[number] -= most
                place = at[number]
                stride = step[number]
                while owner[place] >= 0:
                    place += stride
                    if place >= size:
                        place -= size
                owner[place] = number
                at[number] = place
                taken += 1
                if taken == size:
                    break
        self.table = [members[number] for number in owner]

    def adopt(self, before: Hashing) -> None:
        assert isinstance(before, Maglev)
        self.table = before.table

    def find(self, hashed: int) -> Candidate:
        return self.table[hashed % PLACES]
