"""Priorities, zones, slow start, and those that asked to be left alone."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.balance.groups import LONGEST_REST, NEVER, Groups
from gateway.balance.hashing import Key
from gateway.balance.levels import spread
from gateway.balance.policy import Candidate
from gateway.balance.ramp import FIRST, STEPS, next_step, ramp
from gateway.balance.registry import Recipe, Settings
from tests.balance.test_contract import NOW, asked

SECOND = 10**9


def member(number, priority=0, zone="", weight=1):
    return Candidate(b"%d" % number, weight, priority, zone)


def recipe(name="random", seed=1):
    return Recipe(name, Settings(key=Key("header", b"key")), random.Random(seed).random)


def parts(groups):
    return [round(group.part, 3) for group in groups.all]


def picked(groups, picks=4000, tried=()):
    counts = Counter(groups.pick(asked(number), tried, 0, NOW) for number in range(picks))
    return {member: count / picks for member, count in counts.items()}


# -- the rule -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([(4, 4)], [1]),
        ([(1, 4)], [1]),  # alone it takes everything
        ([(0, 4)], [0]),
        ([(4, 4), (4, 4)], [1, 0]),
        ([(72, 100), (1, 1)], [1, 0]),
        ([(50, 100), (1, 1)], [0.7, 0.3]),
        ([(0, 100), (1, 1)], [0, 1]),
        ([(25, 100), (25, 100)], [0.5, 0.5]),  # together they cannot: in proportion
        ([(25, 100), (50, 100)], [0.35, 0.65]),
        ([(0, 0), (1, 1)], [0, 1]),
        ([(1, 4), (1, 4), (1, 4)], [0.35, 0.35, 0.3]),
        ([], []),
    ],
)
def test_spread(groups, expected):
    assert spread(groups) == pytest.approx(expected, abs=0.0051)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 50)).map(lambda g: (min(g), max(g))), min_size=1))
def test_the_parts_make_a_whole(groups):
    got = spread(groups)
    assert sum(got) == pytest.approx(1.0 if any(ready for ready, _ in groups) else 0.0)
    assert all(0 <= part <= 1 for part in got)
    assert all(ready or not part for (ready, _), part in zip(groups, got, strict=True))


@given(st.integers(0, 3600 * SECOND), st.integers(1, 3600 * SECOND))
def test_ramp(age, window):
    part = ramp(NOW, window, NOW + age)
    assert FIRST <= part <= 1
    assert (part == 1.0) == (age >= window)
    if age < window:
        then = next_step(NOW, window, NOW + age)
        assert NOW + age < then <= NOW + window + STEPS
        assert ramp(NOW, window, then) > part
        assert ramp(NOW, window, then - 1) == part
    assert ramp(NOW + SECOND, window, NOW) == FIRST  # of a moment to come


# -- priorities -------------------------------------------------------------------------------------------------------


def test_a_lower_priority_is_asked_as_far_as_the_higher_is_away():
    first, second = [member(n) for n in range(4)], [member(n + 4, priority=1) for n in range(2)]
    groups = Groups(first + second, recipe())
    for gone, expected in ((0, [1, 0]), (1, [1, 0]), (2, [0.7, 0.3]), (3, [0.35, 0.65]), (4, [0, 1])):
        groups.settle(first[gone:] + second, NOW)
        assert parts(groups) == expected
        got = picked(groups)
        assert sum(share for each, share in got.items() if each in second) == pytest.approx(expected[1], abs=0.03)
    groups.settle([], NOW)
    assert groups.pick(asked(1), (), 0, NOW) is None
    assert groups.review == NEVER


def test_when_all_of_a_group_were_tried_the_next_one_is_asked():
    first, second = [member(0), member(1)], [member(2, priority=1)]
    groups = Groups(first + second, recipe())
    groups.settle(first + second, NOW)
    assert set(picked(groups, tried=first)) == set(second)
    assert groups.pick(asked(1), first + second, 0, NOW) is None


def test_a_key_keeps_its_group_and_its_home_while_some_are_away():
    first, second = [member(n) for n in range(4)], [member(n + 4, priority=1) for n in range(4)]
    groups = Groups(first + second, recipe("maglev"))
    groups.settle(first[2:] + second, NOW)
    homes = [groups.pick(asked(number), (), 0, NOW) for number in range(500)]
    assert {each.priority for each in homes} == {0, 1}
    assert [groups.pick(asked(number), (), 0, NOW) for number in range(500)] == homes


# -- zones ------------------------------------------------------------------------------------------------------------


def test_the_own_zone_is_preferred_within_a_priority():
    a, b = [member(n, zone="a") for n in range(2)], [member(n + 2, zone="b") for n in range(6)]
    far = member(9, priority=1, zone="a")
    groups = Groups([*b, *a, far], recipe(), zone="a")
    assert [(group.priority, group.near) for group in groups.all] == [(0, True), (0, False), (1, True)]
    groups.settle([*a, *b, far], NOW)
    assert set(picked(groups)) == set(a)
    groups.settle([a[0], *b, far], NOW)
    assert parts(groups) == [0.7, 0.3, 0]
    groups.settle([*b, far], NOW)
    assert set(picked(groups)) == set(b)
    groups.settle([far], NOW)
    assert set(picked(groups)) == {far}


@pytest.mark.parametrize(("zone", "zones"), [("", "ab"), ("c", "ab"), ("a", ("", ""))])
def test_without_a_zone_in_common_there_are_no_zones(zone, zones):
    members = [member(n, zone=each) for n, each in enumerate(zones)]
    groups = Groups(members, recipe(), zone=zone)
    groups.settle(members, NOW)
    assert set(picked(groups)) == set(members)
    assert not any(group.near for group in groups.all)


def test_a_full_zone_spills_into_a_less_busy_one():
    near, far = member(0, zone="a", weight=2), member(1, zone="b")
    spare = member(2, priority=1, zone="b")
    groups = Groups([near, far, spare], recipe(), zone="a", spill_above=3)
    groups.settle([near, far, spare], NOW)
    near.inflight = 5
    assert set(picked(groups)) == {near}
    near.inflight = 6  # three for each unit of its weight
    assert set(picked(groups)) == {far}
    far.inflight = 3
    assert set(picked(groups)) == {near}
    near.inflight = 100
    assert set(picked(groups)) == {far}  # and never to another priority
    groups.settle([near, spare], NOW)
    assert set(picked(groups)) == {near}


# -- slow start and rest ------------------------------------------------------------------------------------------------


def test_who_rests_gets_nothing_until_its_time_is_over():
    members = [member(n) for n in range(4)]
    groups = Groups(members, recipe())
    members[0].resting = NOW + SECOND
    groups.settle(members, NOW)
    assert groups.review == NOW + SECOND
    assert members[0] not in picked(groups)
    groups.settle(members, NOW + SECOND)
    assert members[0] in picked(groups)
    assert LONGEST_REST == 10 * SECOND


@pytest.mark.parametrize(("resting", "picks"), [(2, 2), (3, 4), (4, 4)])
def test_more_than_half_of_a_group_never_rests(resting, picks):
    members = [member(n) for n in range(4)]
    groups = Groups(members, recipe())
    for each in members[:resting]:
        each.resting = NOW + SECOND
    groups.settle(members, NOW)
    assert len(picked(groups)) == picks


def test_a_group_whose_half_rests_hands_over_a_part():
    members = [member(0), member(1), member(2, priority=1)]
    groups = Groups(members, recipe())
    members[0].resting = NOW + SECOND
    groups.settle(members, NOW)
    assert parts(groups) == [0.7, 0.3]
