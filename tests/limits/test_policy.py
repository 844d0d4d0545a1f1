"""What a limit says in its header fields (draft-ietf-httpapi-ratelimit-headers-11), to the letter."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.limits.bucket import BucketSpec, take, wait_s
from gateway.limits.costs import BodyCost, Cost, HeaderCost, RowsCost
from gateway.limits.policy import LONGEST, PLACES, SHADOW, LimitPolicy


def policy(rate=100.0, burst=200.0, name="per-client", **how):
    return LimitPolicy(name, spec=BucketSpec(rate, burst), **how)


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
    ("cost", "policy_header", "left"),
    [
        (Cost(5.0), b'"l";q=10;w=1', b'"l";r=4;t=1'),
        (Cost(5.0, "requests"), b'"l";q=10;w=1', b'"l";r=4;t=1'),
        (BodyCost(1024), b'"l";q=10240;qu="content-bytes";w=1', b'"l";r=4608;t=1'),
        (RowsCost(1.0, 9.0), b'"l";q=10;qu="rows";w=1', b'"l";r=4;t=1'),
        (HeaderCost(b"x", 1.0, "gpu-seconds"), b'"l";q=10;qu="gpu-seconds";w=1', b'"l";r=4;t=1'),
    ],
)
def test_what_is_counted_is_said_and_bytes_are_said_in_bytes(cost, policy_header, left):
    one = policy(10.0, 10.0, "l", cost=cost)
    assert one.policy_header() == policy_header
    assert one.left_header(4.5, allowed=True) == left


def test_places_have_no_window():
    one = LimitPolicy("busy", concurrent=20)
    assert one.policy_header() == b'"busy";q=20;qu="concurrent-requests"'
    assert one.left_header(3.0, allowed=True) == b'"busy";r=3'
    assert one.seconds(0.0) == 1
    assert one.figures() == "20 requests at once"


@pytest.mark.parametrize(
    ("rate", "written", "cost", "said"),
    [
        (100 / 60, "100/m", None, "100 requests per minute, 10 at once"),
        (1.5 / 3600, "1.5 / h", Cost(2.0, "tokens"), "1.5 tokens per hour, 10 at once"),
        (1.0, "60/m", BodyCost(1024), "60 tokens of 1024 bytes per minute, 10 at once"),
        (1.0, "60/m", BodyCost(1), "60 bytes per minute, 10 at once"),
        (3.0, "3/s", Cost(1.0, "rows"), "3 rows per second, 10 at once"),
        (5.0, "", None, "5 requests per second, 10 at once"),
    ],
)
def test_who_is_refused_reads_the_rate_as_it_was_written(rate, written, cost, said):
    assert LimitPolicy("l", spec=BucketSpec(rate, 10.0), cost=cost, written=written).figures() == said


def test_the_bucket_is_shown_as_a_digest_where_that_is_wanted():
    one = policy(name="l", partition=True)
    said = one.left_header(5.0, allowed=True, key=b"gw:l:{alice}")
    assert said == b'"l";r=5;t=2;pk=:' + said.partition(b";pk=:")[2]
    assert said.partition(b";pk=")[2] == one.policy_header(b"gw:l:{alice}").partition(b";pk=")[2]
    assert b"alice" not in said
    assert one.left_header(5.0, allowed=True, key=b"gw:l:{bob}") != said


@pytest.mark.parametrize(
    ("tokens", "allowed", "expected"),
    [
        (50.0, True, b'"per-client";r=50;t=2'),  # 1.5 s until full, rounded up
        (50.9, True, b'"per-client";r=50;t=2'),
        (200.0, True, b'"per-client";r=200;t=0'),
        (0.4, False, b'"per-client";r=0;t=1'),
        (-50.0, True, b'"per-client";r=0;t=3'),  # in debt
        (-150.0, False, b'"per-client";r=0;t=2'),
    ],
)
def test_what_is_left(tokens, allowed, expected):
    assert policy().left_header(tokens, allowed=allowed) == expected


def test_refused_says_when_the_next_request_is_admitted():
    assert policy(0.1, 5.0).left_header(0.25, allowed=False) == b'"per-client";r=0;t=8'
    assert policy(0.1, 5.0).left_header(0.25, allowed=False, cost=3.0) == b'"per-client";r=0;t=28'


@given(st.floats(0.001, 1e5), st.floats(1, 1e6), st.floats(-5, 0.999), st.floats(1, 1e3))
def test_whoever_waits_t_seconds_is_admitted(rate, burst, tokens, cost):
    one = policy(rate, burst)
    cost = min(cost, burst)
    seconds = one.seconds(tokens, cost)
    assert seconds >= 1
    assert seconds >= min(LONGEST, wait_s(one.spec, tokens, cost))
    assert take(one.spec, tokens, seconds * 1e6 * (1 + 1e-9) + 1, cost).allowed


def test_what_can_never_be_admitted_still_says_a_number():
    assert policy(1.0, 10.0).seconds(2.0, 500.0) == 8
    assert policy(1 / 3600, 1e8).seconds(0.0, 1e8) == LONGEST


def test_what_the_script_reads_is_exact():
    assert struct.unpack("<Bddd", policy(1 / 3, 7, cost=Cost(0.1)).packed) == (0, 1 / 3, 7.0, 0.1)
    assert struct.unpack("<Bddd", policy(shadow=True).packed)[0] == SHADOW
    places = struct.unpack("<Bddd", LimitPolicy("b", concurrent=3, shadow=True).packed)
    assert places[:3] == (SHADOW | PLACES, 3.0, 3.0)
