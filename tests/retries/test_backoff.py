"""A random wait below a bound that doubles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.retries.backoff import full_jitter


@pytest.mark.parametrize(("number", "bound"), [(1, 25), (2, 50), (3, 100), (4, 200), (5, 250), (6, 250), (10**6, 250)])
def test_the_bound_doubles_up_to_the_most(number, bound):
    assert full_jitter(25, 250, number, 0.0) == 0
    assert full_jitter(25_000, 250_000, number, 0.999999) in range(bound * 1000 - 2, bound * 1000)
    assert full_jitter(25_000, 250_000, number, 0.5) == bound * 500


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(1, 100), st.floats(0, 1, exclude_max=True))
def test_never_above_the_most_nor_below_nothing(base, most, number, rand):
    assert 0 <= full_jitter(base, most, number, rand) <= most
