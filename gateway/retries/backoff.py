"""How long a retry waits: exponential back-off with full jitter.

A random time between nothing and a bound that doubles with each retry, so that those who failed together do not come
back together. Source: M. Brooker, "Exponential Backoff and Jitter" (AWS Architecture Blog, 2015): of the kinds of
jitter, the one with the least work for clients and server alike.
"""

from __future__ import annotations

from typing import Final

_DOUBLINGS: Final = 40  # more than any bound has room for


def full_jitter(base: int, most: int, number: int, rand: float) -> int:
    """Nanoseconds before retry `number` (from 1), below `base` doubled `number - 1` times and below `most`.

    `rand` is drawn from [0, 1).
    """
    return int(rand * min(most, base << min(number - 1, _DOUBLINGS)))
