"""The operations of one call of `limits/bucket.lua` as bytes, and its reply as numbers.

A program is sections, each a head (operation u8, count u16, width u8) and its numbers, little-endian and unaligned:

    take    u8 what varies, then per limit: u8 kind, f64 rate, f64 burst, f64 cost; then per row, where they vary,
            the costs (f64 each), and the member (16 bytes) with its lifetime (f64, microseconds)
    adjust  per key: f64 rate, f64 burst, f64 tokens that come back (negative: are charged)
    release per key: 16 bytes member
    renew   per key: 16 bytes member, f64 lifetime
    lease   per key: f64 rate, f64 burst, f64 tokens wanted
    hint    per key: f64 rate, f64 burst, f64 level
    forget  per key: 8 bytes, which the members of a worker begin with

The limits of a take (its *shape*) are packed once per snapshot, so that a plain request adds its key and nothing else.
"""

from __future__ import annotations

import struct
from typing import Any, Final

TAKE: Final = 1
ADJUST: Final = 2
RELEASE: Final = 3
RENEW: Final = 4
LEASE: Final = 5
HINT: Final = 6
FORGET: Final = 7

_HEAD: Final = struct.Struct("<BHB")
_TRIPLE: Final = struct.Struct("<ddd")
_DOUBLE: Final = struct.Struct("<d")
_DOUBLES: Final = [struct.Struct(f"<{count}d") for count in range(64)]


def head(operation: int, count: int, width: int) -> bytes:
    """The head of a section."""
    return _HEAD.pack(operation, count, width)


def triple(rate: float, burst: float, amount: float) -> bytes:
    """The numbers of an adjust, a lease or a hint."""
    return _TRIPLE.pack(rate, burst, amount)


def lifetime(microseconds: float) -> bytes:
    """How long a place is held without being renewed."""
    return _DOUBLE.pack(microseconds)


def costs(tokens: list[float]) -> bytes:
    """The costs of one row."""
    return struct.pack(f"<{len(tokens)}d", *tokens)


def numbers(reply: bytes, count: int) -> tuple[Any, ...]:
    """The first `count` numbers of a reply."""
    if count < len(_DOUBLES):
        return _DOUBLES[count].unpack_from(reply)
    return struct.unpack_from(f"<{count}d", reply)
