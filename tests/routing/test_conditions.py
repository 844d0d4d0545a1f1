"""Conditions on header fields and query parameters."""

from __future__ import annotations

import pytest

from gateway.request import Request
from gateway.routing.conditions import Conditions, Exact, Matches, Prefix, Present, parameters
from gateway.routing.regex import Regex


def request(target="/x", **headers):
    fields = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return Request(b"GET", target.encode(), target.partition("?")[0].encode(), fields)


@pytest.mark.parametrize(
    ("test", "value", "expected"),
    [
        (Exact(b"a"), b"a", True), (Exact(b"a"), b"A", False), (Exact(b"a"), None, False), (Exact(b""), b"", True),
        (Prefix(b"v2"), b"v2.1", True), (Prefix(b"v2"), b"v1", False), (Prefix(b""), None, False),
        (Present(True), b"", True), (Present(True), None, False), (Present(False), None, True), (Present(False), b"", False),
        (Matches(Regex("v[0-9]+")), b"v12", True), (Matches(Regex("v[0-9]+")), b"xv12", False), (Matches(Regex("")), None, False),
    ],
)  # fmt: skip
def test_one_value(test, value, expected):
    assert test.holds(value) is expected


def test_all_must_hold():
    conditions = Conditions(((b"x-a", Exact(b"1")), (b"x-b", Present(True))), ((b"q", Prefix(b"z")),))
    assert conditions.hold(request("/x?q=zz", x_a="1", x_b=""))
    assert not conditions.hold(request("/x?q=zz", x_a="1"))
    assert not conditions.hold(request("/x?q=y", x_a="1", x_b=""))
    assert not conditions.hold(request("/x", x_a="1", x_b=""))


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/x", {}),
        (b"/x?", {}),
        (b"/x?a", {b"a": b""}),
        (b"/x?a=&b=2", {b"a": b"", b"b": b"2"}),
        (b"/x?a=1&a=2", {b"a": b"1"}),
        (b"/x?a%20b=c+d%26", {b"a b": b"c d&"}),
        (b"/x?=1&&", {}),
        (b"/x?a=b=c?d", {b"a": b"b=c?d"}),
        (b"/x?a=%zz%", {b"a": b"%zz%"}),
    ],
)
def test_parameters(target, expected):
    assert parameters(target) == expected
