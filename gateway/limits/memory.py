"""What is made of the values that clients send, kept ready: the keys of buckets, networks of addresses.

It saves the making (about a microsecond, tens for the network of an IPv6 address), and how many values there are is up
to the clients: so one bound holds for all limits of a worker together. 10,000 keys for each of 100 routes would be
140 MB where they are IPv4 addresses, and 500 MB where three long parts are joined.
"""

from __future__ import annotations

from typing import Final

DEFAULT: Final = 10_000  # values; 1.4 MB of IPv4 addresses


class Memory:
    """At most `most` values in all its parts. One of a snapshot: a reload begins anew."""

    def __init__(self, most: int = DEFAULT) -> None:
        self._most = most
        self._parts: dict[bytes, dict[bytes, bytes]] = {}
        self._kept = 0

    def __len__(self) -> int:
        return self._kept

    def part(self, name: bytes) -> dict[bytes, bytes]:
        """What is kept under that name, to be looked up; who misses something there says `keep`."""
        return self._parts.setdefault(name, {})

    def keep(self, part: dict[bytes, bytes], value: bytes, made: bytes) -> None:
        """What was `made` of a value that `part` does not have. Where there is no room, the part with the most values
        forgets them: that of the limit whose clients are many.
        """
        if self._kept >= self._most:
            largest = max(self._parts.values(), key=len)
            self._kept -= len(largest)
            largest.clear()
        part[value] = made
        self._kept += 1
