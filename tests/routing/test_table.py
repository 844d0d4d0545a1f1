"""Which route a request takes."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.request import Request
from gateway.routing import table as routing_table
from gateway.routing import template
from gateway.routing.conditions import Conditions, Exact
from gateway.routing.table import Match, RouteTable


class Route(NamedTuple):
    name: str
    match: Match


def route(name, path, *methods, host=""):
    prefix = path.endswith("*")
    return Route(
        name,
        Match(
            path.rstrip("*").encode(), prefix, frozenset(m.encode() for m in methods), (host.encode(),) if host else ()
        ),
    )


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


# -- templates, domains, conditions -------------------------------------------------------------------------------


def shaped(name, path, *methods, hosts=(), conditions=None):
    made = template.parse(path) if template.is_template(path) else None
    prefix = path.endswith("*") and made is None
    literal = path.rstrip("*").encode()
    return Route(name, Match(literal, prefix, frozenset(m.encode() for m in methods), tuple(h.encode() for h in hosts), made, conditions))  # fmt: skip


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1/models/digits:predict", "predict"),
        ("/v1/models/digits:classify", "classify"),
        ("/v1/models/digits", "model"),
        ("/v1/models/digits/versions/7:predict", "version"),
        ("/v1/models/digits/metadata", "below"),
        ("/v1/models/", "all"),
        ("/v1/models/digits:", "model"),
        ("/v1/models/:predict", "model"),
    ],
)
def test_templates(path, expected):
    routes = [
        shaped("predict", "/v1/models/{model}:predict"),
        shaped("classify", "/v1/models/{model}:classify"),
        shaped("version", "/v1/models/{model}/versions/{version}:predict"),
        shaped("below", "/v1/models/{model}/*"),
        shaped("model", "/v1/models/{model}"),
        shaped("all", "/*"),
    ]
    assert find(routes, path) == expected


def test_the_file_decides_between_templates_and_others():
    assert find([shaped("t", "/x/{a}"), shaped("e", "/x/y")], "/x/y") == "t"
    assert find([shaped("e", "/x/y"), shaped("t", "/x/{a}")], "/x/y") == "e"
    assert find([shaped("t", "/x/{a}"), shaped("u", "/{b}/y")], "/x/y") == "t"
    assert find([shaped("u", "/{b}/y"), shaped("t", "/x/{a}")], "/x/y") == "u"
    assert find([shaped("p", "/x*"), shaped("t", "/x/{a}")], "/x/y") == "p"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("a.example.com", "below"),
        ("a.b.example.com", "below"),
        ("A.EXAMPLE.com:80", "below"),
        ("example.com", "any"),
        ("badexample.com", "any"),
        (".example.com", "any"),
        ("one.example.com", "one"),
        ("two.org", "one"),
        ("a." * 20_000 + "example.com", "any"),  # no host name; not looked into
    ],
)
def test_domains_and_lists_of_hosts(host, expected):
    routes = [
        shaped("one", "/*", hosts=["one.example.com", "two.org"]),
        shaped("below", "/*", hosts=["*.example.com"]),
        shaped("any", "/*"),
    ]
    assert find(routes, "/x", host=host) == expected


def test_conditions():
    next_model = Conditions(((b"x-model", Exact(b"next")),), ())
    debug = Conditions((), ((b"debug", Exact(b"1")),))
    routes = [
        shaped("next", "/x", "POST", conditions=next_model),
        shaped("debug", "/x", conditions=debug),
        shaped("x", "/x", "GET"),
    ]
    table = RouteTable(routes)
    ask = Request(b"POST", b"/x?debug=1", b"/x", {b"x-model": b"next"})
    assert table.find(ask).name == "next"
    ask.headers = {}
    assert table.find(ask).name == "debug"
    ask.target = b"/x"
    assert table.find(ask) is None
    assert table.allowed(ask) == {b"GET"}, "a method that only other headers would give is not offered"


# -- beside a plain reading of the rules --------------------------------------------------------------------------

PATHS = ["/", "/a", "/a/", "/a/b", "/ab", "/a/b/c", "/abc", "/b", "/b/a", "/a/bc", "/abcdefgh", "/a/b/c/d"]
PATTERNS = [
    *PATHS,
    *(path + "*" for path in PATHS),
    "/{x}",
    "/a/{x}",
    "/{x}/b",
    "/a/{x}/*",
    "/{x}/*",
    "/a{x}",
    "/{x}/{y}",
]
HOSTS = ["", "h", "a.h", "b.a.h"]
ROUTES = st.lists(
    st.builds(
        lambda path, methods, hosts: (path, methods, hosts),
        st.sampled_from(PATTERNS),
        st.sampled_from([(), ("GET",), ("POST",), ("GET", "POST")]),
        st.sampled_from([(), ("h",), ("*.h",), ("a.h", "h"), ("*.a.h",)]),
    ),
    max_size=12,
)


def plainly(match, path, method, host):
    if match.methods and method not in match.methods:
        return False
    if match.hosts and not any(
        host == each or (each.startswith(b"*") and host.endswith(each[1:]) and host != each[1:]) for each in match.hosts
    ):
        return False
    if match.template is not None:
        return match.template.captures(path) is not None
    return path.startswith(match.path) if match.prefix else path == match.path


@given(ROUTES, st.sampled_from(PATHS), st.sampled_from(["GET", "POST"]), st.sampled_from(HOSTS))
@settings(max_examples=600, deadline=None)
def test_as_if_all_routes_were_tried_in_turn(given_routes, path, method, host):
    routes = [shaped(str(n), path, *methods, hosts=hosts) for n, (path, methods, hosts) in enumerate(given_routes)]
    table = RouteTable(routes)
    ask = request(path, method, host)
    expected = next((r for r in routes if plainly(r.match, path.encode(), method.encode(), host.encode())), None)
    assert table.find(ask) is expected
    allowed = {
        m
        for r in routes
        if plainly(r.match._replace(methods=frozenset()), path.encode(), b"", host.encode())
        for m in r.match.methods
    }
    assert table.allowed(ask) == allowed


@given(st.lists(st.text("ab", max_size=12).map(lambda text: "/" + text), max_size=30), st.text("ab", max_size=14))
@settings(max_examples=400, deadline=None)
def test_the_longest_prefix(prefixes, rest):
    path = "/" + rest
    routes = [shaped(prefix, prefix + "*") for prefix in sorted(set(prefixes), key=len, reverse=True)]
    expected = max((p for p in prefixes if path.startswith(p)), key=len, default=None)
    assert find(routes, path) == expected


# -- cost -------------------------------------------------------------------------------------------------------------


class Counting(dict):
    lookups = 0

    def get(self, *args):
        Counting.lookups += 1
        return super().get(*args)

    def __contains__(self, key):
        Counting.lookups += 1
        return super().__contains__(key)


def lookups(routes, path, host="h"):
    table = RouteTable(routes)
    table._exact, table._marks = Counting(table._exact), Counting(table._marks)
    for shelf in table._marks.values():
        shelf.hosts = shelf.hosts and Counting(shelf.hosts)
    Counting.lookups = 0
    assert table.find(request(path, host=host)) is not None
    return Counting.lookups


@pytest.mark.skipif(not routing_table.__file__.endswith(".py"), reason="compiled code looks into a dict directly")
def test_the_cost_does_not_grow_with_the_number_of_routes():
    few = [route("e", "/models/00000"), route("p", "/pool/00000/*")]
    many = [
        *(route(f"e{i}", f"/models/{i:05}") for i in range(5000)),
        *(route(f"p{i}", f"/pool/{i:05}/*") for i in range(5000)),
    ]
    assert lookups(few, "/models/00000") == lookups(many, "/models/04999") == 2
    assert lookups(few, "/pool/00000/x") == lookups(many, "/pool/04999/x") == 2
    hosts = [shaped(str(n), "/*", hosts=[f"h{n}"]) for n in range(5000)]
    assert lookups(hosts[:1], "/x", "h0") == lookups(hosts, "/x", "h4999")


@pytest.mark.skipif(not routing_table.__file__.endswith(".py"), reason="compiled code looks into a dict directly")
def test_a_thousand_lengths_take_ten_looks():
    routes = [route(str(n), "/" + "a" * n + "*") for n in range(1000)]
    assert lookups(routes, "/" + "a" * 700) <= 12
