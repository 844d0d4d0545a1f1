"""What a limit says in its header fields (draft-ietf-httpapi-ratelimit-headers-11), to the letter."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.limits.bucket import BucketSpec, take, wait_s
from gateway.limits.policy import SCOPES, LimitPolicy
from gateway.request import Request


def policy(rate=100.0, burst=200.0, name="per-client"):
    return LimitPolicy(name, "client", BucketSpec(rate, burst))


def request(client=b"", peer=b"10.0.0.9"):
    request = Request(b"GET", b"/", b"/", {}, peer=peer)
    request.client = client
    return request


@pytest.mark.parametrize(
    ("rate", "burst", "expected"),
    [
        (100.0, 200.0, b'"per-client";q=200;w=2'),
        (100.0, 50.0, b'"per-client";q=50;w=1'),  # a window is at least a second
        (0.5, 10.0, b'"per-client";q=10;w=20'),
        (3.0, 10.0, b'"per-client";q=10;w=4'),  # rounded up
    ],
)
def test_policy_header(rate, burst, expected):
    assert policy(rate, burst).policy_header() == expected


@pytest.mark.parametrize(
    ("tokens", "allowed", "expected"),
    [
        (50.0, True, b'"per-client";r=50;t=2'),  # 1.5 s until full, rounded up
        (50.9, True, b'"per-client";r=50;t=2'),
        (200.0, True, b'"per-client";r=200;t=0'),
        (0.4, False, b'"per-client";r=0;t=1'),
    ],
)
def test_what_is_left(tokens, allowed, expected):
    assert policy().left_header(tokens, allowed=allowed) == expected


def test_refused_says_when_the_next_request_is_admitted():
    assert policy(0.1, 5.0).left_header(0.25, allowed=False) == b'"per-client";r=0;t=8'


@given(st.floats(0.001, 1e5), st.floats(1, 1e6), st.floats(0, 0.999))
def test_whoever_waits_t_seconds_is_admitted(rate, burst, tokens):
    one = policy(rate, burst)
    seconds = one.seconds(tokens, allowed=False)
    assert seconds >= 1
    assert seconds >= wait_s(one.spec, tokens)
    assert take(one.spec, tokens, seconds * 1e6 + 1).allowed


def test_arguments_for_the_script_are_exact():
    rate, burst = policy(1 / 3, 7).argv
    assert (float(rate), float(burst)) == (1 / 3, 7.0)
    assert not math.isnan(float(rate))


@pytest.mark.parametrize(
    ("scope", "expected"),
    [("client", b"alice"), ("ip", b"10.0.0.9"), ("route", b"digits"), ("global", b"*")],
)
def test_scopes(scope, expected):
    assert SCOPES[scope](request(b"alice"), b"digits") == expected


def test_an_anonymous_client_is_known_by_its_address():
    assert SCOPES["client"](request(), b"digits") == b"10.0.0.9"
