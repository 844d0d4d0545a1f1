"""What callers say of how long they wait."""

from __future__ import annotations

import pytest

from gateway.retries.deadline import MALFORMED, patience

HOUR = 3_600_000_000_000


@pytest.mark.parametrize(
    ("said", "nanoseconds"),
    [
        (b"250ms", 250_000_000), (b"2s", 2_000_000_000), (b"250", 250_000_000), (b"250 ms", 250_000_000),
        (b"10us", 10_000), (b"7ns", 7), (b"0", 0), (b"0ms", 0), (b"0n", 0),
        (b"1H", HOUR), (b"3M", 180_000_000_000), (b"5S", 5_000_000_000), (b"250m", 250_000_000), (b"9u", 9_000),
        (b"9n", 9), (b"99999999S", HOUR), (b"2H", HOUR),
    ],
)  # fmt: skip
def test_durations(said, nanoseconds):
    assert patience(said, HOUR) == nanoseconds


@pytest.mark.parametrize(
    "said", [b"", b"ms", b"-1ms", b"+1ms", b"1.5s", b"1e3", b"soon", b"123456789ms", b"1d", b"1ms, 2ms", b"1ms\n"]
)
def test_what_is_no_duration(said):
    assert patience(said, HOUR) == MALFORMED


def test_the_route_has_the_last_word():
    assert patience(b"10s", 3_000_000_000) == 3_000_000_000
    assert patience(b"0", 3_000_000_000) == 0
