"""Retry-After in its two forms, and in forms it should not have."""

from __future__ import annotations

import pytest

from gateway.request import Response
from gateway.upstreams.retry_after import LONGEST, retry_after_ns

DATE = b"Wed, 21 Oct 2026 07:28:00 GMT"


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (b"0", 0), (b"1", 1), (b"120", 120), (b"3600", 3600), (b"999999999", 3600), (b"9999999999", 0),
        (b"-1", 0), (b"1.5", 0), (b"", 0), (b"soon", 0), (b"+3", 0), (b"\xff", 0),
        (b"Wed, 21 Oct 2026 07:28:07 GMT", 7),
        (b"Wed, 21 Oct 2026 07:27:00 GMT", 0),
        (b"Thu, 22 Oct 2026 07:28:00 GMT", 3600),
        (b"Wed, 21 Oct 2026 07:28:07", 0),  # no zone
        (b"Wed, 99 Oct 2026 07:28:07 GMT", 0),
    ],
)  # fmt: skip
def test_what_is_said_and_what_is_read(said, seconds):
    assert retry_after_ns(Response(503, [(b"date", DATE), (b"retry-after", said)])) == seconds * 10**9
    assert LONGEST == 3600 * 10**9


def test_without_it_and_with_a_date_that_nothing_can_be_held_against():
    assert retry_after_ns(Response(503, [(b"date", DATE)])) == 0
    assert retry_after_ns(Response(503, [(b"retry-after", DATE)])) == 0
    assert retry_after_ns(Response(503, [(b"retry-after", DATE), (b"date", b"yesterday")])) == 0
