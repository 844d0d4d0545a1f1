"""How long an answer asks to be left alone: `Retry-After` (RFC 9110 section 10.2.3).

A number of seconds, or a date, which is read against the answer's own `Date`: the backend's clock need not be ours, and
none is needed here.
"""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime
from typing import Final

from gateway.request import Response

LONGEST: Final = 3_600_000_000_000  # nanoseconds; what asks for more gets this
_SECONDS: Final = re.compile(rb"[0-9]{1,9}")


def retry_after_ns(response: Response) -> int:
    """Nanoseconds, at most an hour; 0 where the answer does not say, or not so that it can be read."""
    said = response.header(b"retry-after")
    if said is None:
        return 0
    if _SECONDS.fullmatch(said) is not None:
        return min(int(said) * 1_000_000_000, LONGEST)
    date = response.header(b"date")
    if date is None:
        return 0
    try:
        wait = parsedate_to_datetime(said.decode("latin-1")) - parsedate_to_datetime(date.decode("latin-1"))
        return min(max(int(wait.total_seconds() * 1e9), 0), LONGEST)
    except (ValueError, TypeError, OverflowError):  # TypeError: one names a time zone and one does not
        return 0
