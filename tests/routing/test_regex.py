"""Regular expressions in linear time, beside Python's own as the oracle."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.routing.regex import MAX_STATES, Regex


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("", "", True),
        ("", "a", False),
        ("abc", "abc", True),
        ("abc", "abcd", False),
        ("a|bc", "bc", True),
        ("a|", "", True),
        ("^a+$", "aaa", True),
        ("a{2}", "aa", True),
        ("a{2}", "aaa", False),
        ("a{2,}", "aaaa", True),
        ("a{2,}", "a", False),
        ("a{1,3}", "aaaa", False),
        ("a{0}b", "b", True),
        ("(ab)*", "ababab", True),
        ("(ab?)+c", "aababc", True),
        ("[a-c-]+", "a-c", True),
        ("[]a]+", "]a", True),
        ("[^0-9]*", "abc", True),
        ("[^0-9]*", "ab3", False),
        (r"\d+\.\d+", "3.14", True),
        (r"\d+\.\d+", "3x14", False),
        (r"\$\^", "$^", True),
        (r"a\\$", "a\\", True),
        ("(?i)Bearer .*", "bEARER x", True),
        ("(?i)[a-c]+", "ABC", True),
        ("é+", "éé", True),
        (r"(?:x|y){2,3}z", "xyz", True),
        (".*curl.*", "a curl b", True),
    ],
)
def test_matches(text, value, expected):
    assert Regex(text).matches(value.encode()) is expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("(a", "not closed"), ("a)", "too many"), ("[a", "not closed"), ("*a", "nothing before"), ("a**", "after a repeat"),
        ("a+?", "lazy"), ("(?=a)", "begins with"), ("(?P<x>a)", "begins with"), (r"\1", "does not exist"),
        (r"\b", "does not exist"), ("a\\", "does not exist"), ("a{3,1}", "smaller first"), ("a{999}", "up to"),
        ("a{x", "does not begin a count"), ("a^b", "inside"), ("a$b", "inside"), ("[z-a]", "range"), ("[é]", "only ASCII"),
        ("(" * 30 + "a" + ")" * 30, "nests"), ("((a{200}){200}){200}", "too large"), ("(.*a.{12})", "too complex"),
    ],
)  # fmt: skip
def test_refused(text, complaint):
    with pytest.raises(ValueError, match=complaint):
        Regex(text)


@pytest.mark.parametrize("text", ["(a+)+b", "(a|a)*b", "(a*)*b", "(.*)(.*)(.*)b"])
def test_what_would_hold_a_backtracking_engine_for_years(text):
    regex = Regex(text)
    began = time.perf_counter()
    assert not regex.matches(b"a" * 30_000)
    assert time.perf_counter() - began < 20


def test_building_is_bounded():
    began = time.perf_counter()
    with pytest.raises(ValueError, match=str(MAX_STATES)):
        Regex("(a|b)*a(a|b){30}")
    Regex("[a-z]{1,255}@[a-z]{1,255}")
    assert time.perf_counter() - began < 20


ATOM = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", r"\d", "1"])
EXPRESSION = st.recursive(
    ATOM,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda two: f"({two[0]}|{two[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{0,}"])).map(
            lambda two: f"({two[0]}){two[1]}"
        ),
    ),
    max_leaves=6,
)


@given(EXPRESSION, st.text("ab1", max_size=8))
@settings(max_examples=500, deadline=None)
def test_as_the_oracle_says(text, value):
    expected = re.compile(text.encode(), re.DOTALL).fullmatch(value.encode()) is not None
    assert Regex(text).matches(value.encode()) is expected
