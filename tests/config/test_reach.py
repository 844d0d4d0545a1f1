"""Which requests one match takes of another's, beside the route table itself as the judge."""

from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.app.routes import match as compiled
from gateway.config.lint import lint
from gateway.config.load import load_text
from gateway.config.model import Match
from gateway.config.reach import can_start, covers
from gateway.request import Request
from gateway.routing.table import Match as Compiled
from gateway.routing.table import RouteTable

PATHS = ["/", "/a", "/a/", "/a/b", "/ab", "/a/b/", "/a/b/c", "/x/b", "/x/", "/x/y:p", "/a/b:p", "/a/b:p/c", "/axb"]
PATTERNS = [
    *PATHS,
    "/*",
    "/a*",
    "/a/*",
    "/a/b*",
    "/{x}",
    "/{x}/{y}",
    "/a/{x}",
    "/{x}/b",
    "/{x}/*",
    "/a/{x}/*",
    "/a/{x}:p",
    "/a{x}",
]
TESTS: list[object] = ["1", "12", {"prefix": "1"}, {"present": True}, {"present": False}, {"regex": "1+"}]


class Route(NamedTuple):
    match: Compiled


MATCHES = st.builds(
    lambda path, methods, host, headers, query: Match.model_validate(
        {"path": path, "methods": methods, "host": host, "headers": headers, "query": query}
    ),
    st.sampled_from(PATTERNS),
    st.sampled_from([None, ("GET",), ("GET", "POST")]),
    st.sampled_from([(), ("h",), ("a.h",), ("*.h",), ("*.a.h", "h")]),
    st.dictionaries(st.sampled_from(["x-a", "x-b"]), st.sampled_from(TESTS), max_size=1),
    st.dictionaries(st.just("q"), st.sampled_from(TESTS), max_size=1),
)


def requests() -> list[Request]:
    made = []
    for path in PATHS:
        for method in (b"GET", b"POST"):
            for host in (b"", b"h", b"a.h", b"b.a.h"):
                for value in (None, b"", b"1", b"12"):
                    fields = {b"host": host} if value is None else {b"host": host, b"x-a": value, b"x-b": value}
                    target = path.encode() + (b"" if value is None else b"?q=" + value)
                    made.append(Request(method, target, path.encode(), fields))
    return made


REQUESTS = requests()


@given(MATCHES, MATCHES)
@settings(max_examples=400, deadline=None)
def test_what_is_covered_is_taken(wide: Match, narrow: Match) -> None:
    if covers(wide, narrow):
        first, second = RouteTable([Route(compiled(wide))]), RouteTable([Route(compiled(narrow))])
        for request in REQUESTS:
            if second.find(request) is not None:
                assert first.find(request) is not None, request


@given(MATCHES)
def test_every_match_covers_itself(match: Match) -> None:
    assert covers(match, match)


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        ({"path": "/*"}, {"path": "/{x}/y"}),
        ({"path": "/a/*"}, {"path": "/a/{x}:predict"}),
        ({"path": "/a/{x}"}, {"path": "/a/b"}),
        ({"path": "/a/{x}/*"}, {"path": "/a/b/c"}),
        ({"path": "/a/{x}/*"}, {"path": "/a/b/*"}),
        ({"path": "/a/{x}/*"}, {"path": "/a/{y}/versions/{z}"}),
        ({"path": "/a/{x}"}, {"path": "/a/{y}:predict"}),
        ({"path": "/a", "host": ["*.h"]}, {"path": "/a", "host": ["a.h", "*.b.h"]}),
        ({"path": "/a", "headers": {"x": {"present": True}}}, {"path": "/a", "headers": {"x": "1", "y": "2"}}),
        ({"path": "/a", "query": {"x": {"prefix": "1"}}}, {"path": "/a", "query": {"x": "12"}}),
    ],
)
def test_covered(wide: dict[str, object], narrow: dict[str, object]) -> None:
    assert covers(Match.model_validate(wide), Match.model_validate(narrow))
    assert not covers(Match.model_validate(narrow), Match.model_validate(wide))


@pytest.mark.parametrize(
    ("path", "start", "expected"),
    [("/a/b", "/a", True), ("/a/b", "/a/b/c", False), ("/a*", "/abc", True), ("/a/{x}", "/a/b", True), ("/a/{x}", "/b", False)],
)  # fmt: skip
def test_can_start(path: str, start: str, expected: bool) -> None:
    assert can_start(Match(path=path), start) is expected


def test_the_warning_has_its_place() -> None:
    text = """version: 1
pools: {p: {backends: [{url: "http://a:1"}]}}
routes:
  - {name: wide, match: {path: "/v1/models/{model}/*"}, pool: p}
  - name: narrow
    match: {path: "/v1/models/digits/metadata", headers: {x-a: "1"}}
    pool: p
"""
    (found,) = lint(load_text(text, Path("x.yaml")))
    assert (found.file, found.line, found.col, found.severity) == ("x.yaml", 6, 12, "warning")
    assert found.message == "routes[1].match: never reached, the route 'wide' above takes all its requests"
