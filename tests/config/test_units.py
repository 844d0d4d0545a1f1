"""Units: exact values, refusals, and that what is formatted parses back to the same number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import units


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("25ms", 0.025),
        ("5s", 5.0),
        ("2m", 120.0),
        ("1h", 3600.0),
        ("1.5s", 1.5),
        ("0", 0.0),
        ("1 s", 1.0),
    ],
)
def test_duration(text: str, seconds: float) -> None:
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("16KiB", 16384), ("1MiB", 1 << 20), ("64KB", 64000), ("2GiB", 2 << 30), ("512B", 512), ("1.5KiB", 1536)],
)
def test_size(text: str, size: int) -> None:
    assert units.parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "per_second"),
    [("100/s", 100.0), ("6000/m", 100.0), ("1000/h", 1000 / 3600), ("0.5/s", 0.5), ("10 / m", 1 / 6)],
)
def test_rate(text: str, per_second: float) -> None:
    assert units.parse_rate(text) == per_second


@pytest.mark.parametrize(
    "text", ["", "5", "5 seconds", "-1s", "1e3s", "1h30m", "s", "5S", "\u0665s", "1_0s", "1,5s", "5s\n6s"]
)
def test_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="a duration such as"):
        units.parse_duration(text)


@pytest.mark.parametrize("text", ["", "16k", "16M", "16mib", "5", "-1B", "KiB"])
def test_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="a size such as"):
        units.parse_size(text)


def test_part_of_a_byte() -> None:
    with pytest.raises(ValueError, match="whole number of bytes"):
        units.parse_size("0.3B")


@pytest.mark.parametrize("text", ["", "100", "100s", "/s", "100/d", "100/ms", "-1/s"])
def test_no_rate(text: str) -> None:
    with pytest.raises(ValueError, match="a rate such as"):
        units.parse_rate(text)


@given(st.integers(0, 10**7), st.sampled_from(sorted(units.SECONDS)))
def test_duration_round_trip(number: int, unit: str) -> None:
    seconds = units.parse_duration(f"{number}{unit}")
    assert units.parse_duration(units.format_duration(seconds)) == seconds


@given(st.floats(0.001, 1e6))
def test_any_duration_is_formatted_closely(seconds: float) -> None:
    assert units.parse_duration(units.format_duration(seconds)) == pytest.approx(seconds, rel=1e-9)


@given(st.integers(0, 2**50))
def test_size_round_trip(size: int) -> None:
    assert units.parse_size(units.format_size(size)) == size


@given(st.integers(0, 10**7), st.sampled_from(sorted(units.PERIODS)))
def test_rate_round_trip(number: int, unit: str) -> None:
    rate = units.parse_rate(f"{number}/{unit}")
    assert units.parse_rate(units.format_rate(rate)) == rate


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.025, "25ms"), (0.0, "0s"), (90.0, "90s"), (120.0, "2m"), (7200.0, "2h"), (0.0005, "0.5ms")]
)
def test_shortest_duration(seconds: float, text: str) -> None:
    assert units.format_duration(seconds) == text
