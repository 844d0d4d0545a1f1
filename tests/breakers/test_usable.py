"""The panic rule as a table, and that its answer is kept until something turns."""

from __future__ import annotations

import itertools

import pytest

from gateway.breakers.gate import BreakerSettings, Gate
from gateway.breakers.permit import LENIENT, STRICT, URGED
from gateway.breakers.usable import Usable
from gateway.request import Outcome

SECOND = 1_000_000_000
NOW = 1000 * SECOND
SETTINGS = BreakerSettings(failures=3, open_for=10.0, error_rate=0.5, min_calls=4)


class Member:
    def __init__(self, name, kind, weight=1):
        self.name, self.weight, self.standing = name, weight, kind not in ("out", "out-hard")
        self.usable = None
        self.gate = Gate(SETTINGS, lambda: self.usable and self.usable.unsettle())
        for outcome in {
            "hard": [Outcome.FAILURE] * 3,
            "out-hard": [Outcome.FAILURE] * 3,
            "soft": [Outcome.FAILURE, Outcome.SUCCESS, Outcome.FAILURE, Outcome.SUCCESS, Outcome.FAILURE],
        }.get(kind, []):
            permit = self.gate.try_acquire(NOW)
            if permit is not None:
                self.gate.release(permit, outcome, NOW)
        if kind == "shut":
            self.gate.force("open", NOW)
        if kind == "doubt":
            self.gate.hint_failing(NOW)

    def __repr__(self):
        return self.name


def pool(kinds, panic=0.5):
    members = [Member(f"{index}-{kind}", kind) for index, kind in enumerate(kinds.split())]
    usable = Usable(members, [member.gate for member in members], panic)
    for member in members:
        member.usable = usable
    return members, usable


@pytest.mark.parametrize(
    ("kinds", "panic", "picked", "level"),
    [
        ("ok ok ok ok", 0.5, "0 1 2 3", STRICT),
        ("ok ok ok hard", 0.5, "0 1 2", STRICT),
        ("ok ok hard soft", 0.5, "0 1", STRICT),
        ("ok ok out out", 0.5, "0 1", STRICT),
        ("ok hard hard hard", 0.5, "0", LENIENT),  # the dead are not called back to help
        ("ok out out out", 0.5, "0 1 2 3", LENIENT),
        ("ok soft hard out", 0.5, "0 1 3", LENIENT),
        ("ok soft soft soft", 0.0, "0", STRICT),  # no panic while one is left
        ("soft soft soft soft", 0.0, "0 1 2 3", LENIENT),
        ("out out", 0.5, "0 1", LENIENT),
        ("out", 0.5, "0", LENIENT),
        ("doubt", 0.5, "0", LENIENT),
        ("doubt ok", 0.5, "0 1", STRICT),  # with a free slot for a probe
        ("out-hard out", 0.5, "1", LENIENT),
        ("hard hard", 0.5, "", URGED),
        ("hard", 0.5, "", URGED),
        ("ok shut", 0.9, "0", STRICT),  # by decision no part of the pool
        ("shut shut", 0.5, "", URGED),
        ("out shut", 0.5, "0", LENIENT),
        ("hard shut", 0.5, "", URGED),
    ],
)
def test_rule(kinds, panic, picked, level):
    _members, usable = pool(kinds, panic)
    assert " ".join(each.name[0] for each in usable.at(NOW)) == picked
    assert usable.level == level
    assert all(each.gate.available(NOW) for each in usable.at(NOW)), "what is picked gives a permit"
    assert all(each.gate.try_acquire(NOW) is not None for each in usable.at(NOW))


@pytest.mark.parametrize(
    "kinds", [" ".join(each) for each in itertools.product(["ok", "hard", "soft", "out"], repeat=3)]
)
def test_never_the_last_capacity_and_never_the_dead_beside_the_living(kinds):
    _members, usable = pool(kinds)
    picked = usable.at(NOW)
    if kinds != "hard hard hard":
        assert picked
    assert not [each for each in picked if "hard" in each.name]


def test_weight_counts_and_drained_backends_do_not():
    members, usable = pool("ok hard")
    members[1].weight = 3
    assert usable.at(NOW) == (members[0],)
    assert usable.level == LENIENT
    members, usable = pool("ok hard")
    members[1].weight = 0
    assert usable.at(NOW) == (members[0],)
    assert usable.level == STRICT


def test_the_same_answer_until_something_turns():
    members, usable = pool("ok ok")
    picked = usable.at(NOW)
    assert usable.at(NOW + 100 * SECOND) is picked
    for _ in range(3):
        members[0].gate.release(members[0].gate.try_acquire(NOW), Outcome.FAILURE, NOW)
    assert usable.at(NOW) == (members[1],)


def test_a_gate_whose_time_has_come_is_picked_without_being_told():
    members, usable = pool("ok hard ok")
    assert members[1] not in usable.at(NOW)
    assert members[1] not in usable.at(NOW + 10 * SECOND - 1)
    assert members[1] in usable.at(NOW + 10 * SECOND)
    probe = members[1].gate.try_acquire(NOW + 10 * SECOND)
    assert members[1] not in usable.at(NOW + 10 * SECOND), "its only slot is taken"
    members[1].gate.release(probe, Outcome.IGNORE, NOW + 10 * SECOND)
    assert members[1] in usable.at(NOW + 10 * SECOND), "and free again"


def test_the_last_resort_waits_a_tenth_of_a_second_and_then_probes():
    members, usable = pool("hard hard")
    assert usable.at(NOW + SECOND // 10 - 1) == ()
    assert usable.at(NOW + SECOND // 10) == tuple(members)


def test_the_last_resort_goes_on_beside_a_gate_whose_time_has_come():
    members, usable = pool("hard hard hard")
    now = NOW + 10 * SECOND
    for member in members[1:]:
        member.gate.release(member.gate.try_acquire(now), Outcome.FAILURE, now)
    assert usable.at(now) == (members[0],)
    members[0].gate.try_acquire(now)
    assert usable.at(now) == ()
    assert usable.at(now + SECOND // 10) == tuple(members[1:])


def close(member, now):
    member.gate.release(member.gate.try_acquire(now), Outcome.SUCCESS, now)
    assert member.gate.state == "closed"


def test_when_the_first_is_back_the_others_are_probed_at_once_and_once():
    members, usable = pool("hard hard hard hard")
    now = NOW + SECOND // 10
    assert usable.at(now) == tuple(members)
    close(members[0], now)
    usable.at(now)
    assert usable.at(now) == tuple(members)
    probe = members[1].gate.try_acquire(now)
    assert members[1].gate.try_acquire(now) is None, "one probe"
    members[1].gate.release(probe, Outcome.FAILURE, now)
    assert members[1] not in usable.at(now)
    assert members[1] not in usable.at(now + 9 * SECOND)
    close(members[2], now)
    usable.at(now)
    assert members[1] in usable.at(now), "half of it is back, which is enough: once more"


@pytest.mark.parametrize("kinds", ["ok ok hard hard", "ok hard hard hard", "ok hard"])
@pytest.mark.parametrize("how", ["doubt", "health"])
def test_the_dead_are_not_probed_because_the_living_are_doubted_for_a_moment(kinds, how):
    members, usable = pool(kinds)
    living = tuple(member for member in members if member.gate.closed)
    now = NOW
    for _ in range(5):
        now += SECOND
        if how == "doubt":
            assert living[0].gate.hint_failing(now)
        else:
            living[0].standing = False
            usable.unsettle()
        assert usable.at(now) == living
        if how == "doubt":
            close(living[0], now)
        else:
            living[0].standing = True
            usable.unsettle()
        usable.at(now)
        assert usable.at(now) == living


def test_a_probe_from_before_that_fails_when_the_pool_is_back_is_made_again_soon():
    members, usable = pool("hard hard")
    now = NOW + SECOND // 10
    assert usable.at(now) == tuple(members)
    late = members[1].gate.try_acquire(now)
    close(members[0], now)
    usable.at(now)
    members[1].gate.release(late, Outcome.FAILURE, now)
    assert members[1] not in usable.at(now)
    now += SECOND // 10
    assert members[1] in usable.at(now)
    members[1].gate.release(members[1].gate.try_acquire(now), Outcome.FAILURE, now)
    assert members[1] not in usable.at(now + 9 * SECOND), "once"


def test_nobody_is_probed_early_because_one_that_was_not_missed_is_back():
    members, usable = pool("ok ok ok hard hard")
    now = NOW + 10 * SECOND
    members[3].gate.release(members[3].gate.try_acquire(now), Outcome.FAILURE, now)
    assert usable.at(now) == (*members[:3], members[4])
    close(members[4], now)
    assert usable.at(now) == (*members[:3], members[4])


def test_the_open_time_does_not_grow_while_nobody_answers():
    members, usable = pool("hard hard")
    now = NOW
    for _ in range(20):
        now += SECOND // 10
        assert usable.at(now) == tuple(members)
        for member in members:
            member.gate.release(member.gate.try_acquire(now), Outcome.FAILURE, now)
    assert members[0].gate.ready_from <= now + 20 * SECOND
    close(members[1], members[1].gate.ready_from)


def test_a_permit_beyond_the_rule_proves_nothing_but_that_there_is_no_capacity():
    members, usable = pool("soft soft")
    usable.at(NOW)
    gate = members[0].gate
    permits = [gate.try_acquire(NOW) for _ in range(10)]
    for permit in permits[:2]:
        gate.release(permit, Outcome.SUCCESS, NOW)
    assert gate.state == "open"
    for permit in permits[2:5]:
        gate.release(permit, Outcome.FAILURE, NOW)
    assert (gate.state, gate.hard) == ("open", True)
    assert usable.at(NOW) == (members[1],)
    gate.release(permits[5], Outcome.SUCCESS, NOW)
    assert usable.at(NOW) == tuple(members)


def test_spare_ones_are_those_with_only_an_opinion_against_them():
    members, usable = pool("ok out hard ok")
    usable.at(NOW)
    assert usable.spare == (members[1],)
    assert repr(usable) == "<Usable 2 of 4, strict>"
