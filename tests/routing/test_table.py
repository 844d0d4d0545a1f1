"""Which route a request takes."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from gateway.request import Request
from gateway.routing.table import Match, RouteTable


class Route(NamedTuple):
    name: str
    match: Match


def route(name, path, *methods, host=""):
    prefix = path.endswith("*")
    return Route(name, Match(path.rstrip("*").encode(), prefix, frozenset(m.encode() for m in methods), host.encode()))


def find(routes, path, method="GET", host="h"):
    found = RouteTable(routes).find(request(path, method, host))
    return found.name if found is not None else None


def request(path, method="GET", host="h"):
    return Request(method.encode(), path.encode(), path.encode(), {b"host": host.encode()})


@pytest.mark.parametrize(
    ("routes", "path", "expected"),
    [
        ([route("a", "/x")], "/x", "a"),
        ([route("a", "/x")], "/x/", None),
        ([route("a", "/x")], "/", None),
        ([route("a", "/x*")], "/x", "a"),
        ([route("a", "/x*")], "/xy/z", "a"),
        ([route("a", "/x*")], "/", None),
        ([route("a", "/x/*")], "/x", None),
        ([route("a", "/*")], "/anything", "a"),
        # first in the file wins, whatever is more specific
        ([route("a", "/*"), route("b", "/x")], "/x", "a"),
        ([route("a", "/x"), route("b", "/*")], "/x", "a"),
        ([route("a", "/x"), route("b", "/*")], "/y", "b"),
        ([route("a", "/v1/*"), route("b", "/v1/models/*"), route("c", "/*")], "/v1/models/d", "a"),
        ([route("a", "/v1/models/*"), route("b", "/v1/*")], "/v1/models/d", "a"),
        ([route("a", "/x"), route("b", "/x")], "/x", "a"),
    ],
)
def test_paths(routes, path, expected):
    assert find(routes, path) == expected


def test_methods():
    routes = [route("read", "/x", "GET", "HEAD"), route("write", "/x", "POST"), route("rest", "/*", "DELETE")]
    assert find(routes, "/x", "HEAD") == "read"
    assert find(routes, "/x", "POST") == "write"
    assert find(routes, "/x", "DELETE") == "rest"
    assert find(routes, "/x", "PUT") is None
    assert RouteTable(routes).allowed(request("/x", "PUT")) == {b"GET", b"HEAD", b"POST", b"DELETE"}
    assert RouteTable(routes).allowed(request("/y", "PUT")) == {b"DELETE"}


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("a.example", "a"),
        ("A.Example", "a"),
        ("a.example:8080", "a"),
        ("b.example", "any"),
        ("", "any"),
        ("a.example:", "any"),
        ("[::1]:80", "six"),
        ("[::1]", "six"),
    ],
)
def test_hosts(host, expected):
    routes = [route("a", "/*", host="a.example"), route("six", "/*", host="[::1]"), route("any", "/*")]
    assert find(routes, "/x", host=host) == expected


def test_no_path_and_a_path_on_another_host_are_not_found_rather_than_not_allowed():
    routes = [route("a", "/x", "POST", host="a.example")]
    assert RouteTable(routes).allowed(request("/y")) == frozenset()
    assert RouteTable(routes).allowed(request("/x", host="b.example")) == frozenset()
    assert RouteTable(routes).allowed(request("/x", host="a.example")) == {b"POST"}


class Counting(dict):
    lookups = 0

    def get(self, *args):
        Counting.lookups += 1
        return super().get(*args)


def lookups(routes, path):
    table = RouteTable(routes)
    table._exact = Counting(table._exact)
    table._prefixes = [(length, Counting(found)) for length, found in table._prefixes]
    Counting.lookups = 0
    assert table.find(request(path)) is not None
    return Counting.lookups


def test_the_cost_does_not_grow_with_the_number_of_routes():
    few = [route("e", "/models/00000"), route("p", "/pool/00000/*")]
    many = [
        *(route(f"e{i}", f"/models/{i:05}") for i in range(5000)),
        *(route(f"p{i}", f"/pool/{i:05}/*") for i in range(5000)),
    ]
    assert lookups(few, "/models/00000") == lookups(many, "/models/04999") == 2
    assert lookups(few, "/pool/00000/x") == lookups(many, "/pool/04999/x") == 2
