"""Dividing requests between pools."""

from __future__ import annotations

import itertools
import random

import pytest

from gateway.request import Request
from gateway.routing.split import Side, Split, Sticky

CLIENT = Sticky()


def split(sticky=None, **weights):
    return Split([Side(name, weight, name) for name, weight in weights.items()], sticky)


def request(client="", **headers):
    fields = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    one = Request(b"GET", b"/", b"/", fields, peer=b"10.0.0.9")
    one.client = client.encode()
    return one


def never():
    raise AssertionError("not by lot")


def placed(one, count=20_000):
    return [one.side(request(f"client-{n}"), never) for n in range(count)]


def test_by_lot():
    one = split(stable=95, canary=5)
    assert [one.side(request(), lambda at=at: at) for at in (0.0, 0.949, 0.951, 0.999999)] == ["stable"] * 2 + [
        "canary"
    ] * 2
    draw = random.Random(1).random
    drawn = [one.side(request(), draw) for _ in range(20_000)]
    assert 0.045 < drawn.count("canary") / len(drawn) < 0.055


def test_no_weight_no_requests():
    one = split(stable=1, canary=0)
    assert {one.side(request(), lambda at=at: at) for at in (0.0, 0.5, 0.9999999)} == {"stable"}
    assert set(placed(split(CLIENT, stable=1, canary=0), 1000)) == {"stable"}


@pytest.mark.parametrize("weights", [{"a": 95, "b": 5}, {"a": 1, "b": 1, "c": 2}, {"a": 999, "b": 1}])
def test_sticky_shares(weights):
    sides = placed(split(CLIENT, **weights))
    total = sum(weights.values())
    for name, weight in weights.items():
        share = weight / total
        assert abs(sides.count(name) / len(sides) - share) < 4 * (share * (1 - share) / len(sides)) ** 0.5


def test_the_same_key_the_same_side_in_every_process_and_version():
    one = split(CLIENT, stable=1, canary=1)
    known = "".join(side[0] for side in placed(one, 24))
    assert known == "sscsccscccccsccssscccssc"
    assert placed(one, 100) == placed(split(CLIENT, canary=1, stable=1), 100), "whatever the order they are written in"


def test_only_those_who_must_move_do():
    before, after = placed(split(CLIENT, stable=95, canary=5)), placed(split(CLIENT, stable=90, canary=10))
    moves = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert set(moves) == {("stable", "canary")}
    assert 0.04 < len(moves) / len(before) < 0.06


def test_a_new_side_takes_from_all_alike_and_moves_nobody_else():
    before, after = placed(split(CLIENT, a=1, b=1)), placed(split(CLIENT, a=1, b=1, c=1))
    moves = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert {to for _, to in moves} == {"c"}
    taken = [sum(1 for a, _ in moves if a == side) for side in "ab"]
    assert all(abs(each / len(before) - 1 / 6) < 0.02 for each in taken)


@pytest.mark.parametrize(
    ("sticky", "asked", "key"),
    [
        (Sticky(), request("alice"), b"alice"),
        (Sticky(), request(), b"10.0.0.9"),
        (Sticky(header=b"x-user"), request(x_user="7"), b"7"),
        (Sticky(header=b"x-user"), request("alice"), b""),
        (Sticky(cookie=b"sid"), request(cookie="a=b; sid=xyz; c=d"), b"xyz"),
        (Sticky(cookie=b"sid"), request(cookie="xsid=1"), b""),
        (Sticky(cookie=b"sid"), request(), b""),
    ],
)
def test_keys(sticky, asked, key):
    assert sticky.key(asked) == key


def test_without_a_key_by_lot():
    one = split(Sticky(header=b"x-user"), a=1, b=1)
    lots = itertools.cycle([0.1, 0.9])
    assert [one.side(request(), lambda: next(lots)) for _ in range(4)] == ["a", "b", "a", "b"]
