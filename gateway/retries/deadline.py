"""How long a request's caller will wait, from what it says: `X-Request-Timeout: 250ms` or `grpc-timeout: 250m`.

Both fields take both spellings: digits and a unit, of grpc-timeout (H M S m u n; gRPC over HTTP/2, "Timeout") or ns us
ms s; a bare number is milliseconds. The route's timeout is the upper bound: a caller can only ask for less.
"""

from __future__ import annotations

import re
from typing import Final

FIELDS: Final = (b"x-request-timeout", b"grpc-timeout")  # the first that is there counts
MALFORMED: Final = -1
_SYNTAX: Final = re.compile(rb"([0-9]{1,8}) ?(H|M|S|m|u|n|ms|s|us|ns)?")
_UNITS: Final = {
    b"H": 3_600_000_000_000, b"M": 60_000_000_000, b"S": 1_000_000_000, b"s": 1_000_000_000, b"m": 1_000_000,
    b"ms": 1_000_000, b"u": 1_000, b"us": 1_000, b"n": 1, b"ns": 1, None: 1_000_000,
}  # fmt: skip


def patience(said: bytes, allowed: int) -> int:
    """Nanoseconds the request may take, `allowed` at the most; 0 is no time at all. MALFORMED: it is no duration."""
    match = _SYNTAX.fullmatch(said)
    if match is None:
        return MALFORMED
    return min(allowed, int(match[1]) * _UNITS[match[2]])
