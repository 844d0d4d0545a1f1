"""What is kept ready of clients' values is bounded over all limits, and says what making it anew would say."""

from __future__ import annotations

import random

from gateway.limits.bucket import BucketSpec
from gateway.limits.memory import DEFAULT, Memory
from gateway.limits.policy import LimitPolicy
from gateway.limits.scopes import bucket_key
from gateway.limits.verdict import RouteLimits


def route(number, memory, limit=None):
    policy = LimitPolicy(limit or f"limit-{number}", None, BucketSpec(1.0, 1.0))
    return RouteLimits(f"route-{number}", [policy], "gw", memory)


def test_a_hundred_routes_keep_as_much_as_one():
    memory = Memory()
    routes = [route(number, memory) for number in range(100)]
    for each in routes:
        for client in range(300):
            each.first_key(b"client-%d" % client)
    assert len(memory) <= DEFAULT
    assert sum(len(memory.part(each.prefixes[0])) for each in routes) == len(memory)


def test_keys_are_right_whatever_was_forgotten():
    memory, draw = Memory(50), random.Random(7)
    routes = [route(number, memory) for number in range(5)]
    for _ in range(5_000):
        each, value = draw.choice(routes), b"c|%d" % draw.randrange(40)
        assert each.first_key(value) == bucket_key(each.prefixes[0], value)
        assert len(memory) <= 50


def test_the_limit_with_the_most_clients_makes_room():
    memory = Memory(100)
    small, large = route(1, memory), route(2, memory)
    small.first_key(b"regular")
    for client in range(1_000):
        large.first_key(b"client-%d" % client)
    assert list(memory.part(small.prefixes[0])) == [b"regular"]


def test_routes_that_share_a_limit_share_its_keys():
    memory = Memory()
    one, two = route(1, memory, "shared"), route(2, memory, "shared")
    assert one.first_key(b"alice") is two.first_key(b"alice")
    assert len(memory) == 1
