"""Request targets: one path for the routes and for the backend, or a refusal."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.errors import ProtocolError
from gateway.http.target import split_target


@pytest.mark.parametrize(
    ("raw", "path", "target"),
    [
        (b"/", b"/", b"/"),
        (b"/a/b?x=1", b"/a/b", b"/a/b?x=1"),
        (b"/a?", b"/a", b"/a?"),
        (b"/a?b?c", b"/a", b"/a?b?c"),
        (b"/a?x=%2f/../..//", b"/a", b"/a?x=%2f/../..//"),  # the query is the backend's own business
        (b"/v1/models/m:predict", b"/v1/models/m:predict", b"/v1/models/m:predict"),
        (b"/%61%7E", b"/a~", b"/a~"),
        (b"/%c3%bc", b"/%C3%BC", b"/%C3%BC"),
        (b"/a%20b", b"/a%20b", b"/a%20b"),
        (b"/%252f", b"/%252f", b"/%252f"),
        (b"/a/./b/.", b"/a/b/", b"/a/b/"),
        (b"/a/b/../c", b"/a/c", b"/a/c"),
        (b"/a/%2e%2E/c", b"/c", b"/c"),
        (b"/a/..", b"/", b"/"),
        (b"/.well-known/x", b"/.well-known/x", b"/.well-known/x"),
        (b"/a/...", b"/a/...", b"/a/..."),
        (b"http://gw/a?b", b"/a", b"/a?b"),
        (b"HTTP://GW/a", b"/a", b"/a"),
        (b"http://gw", b"/", b"/"),
        (b"http://gw?q=1", b"/", b"/?q=1"),
        (b"https://gw/", b"/", b"/"),
    ],
)
def test_accepted(raw, path, target):
    assert split_target(raw, b"gw") == (path, target)


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"*", b"a", b"gw:443", b"ftp://gw/", b"http://other/a", b"http://gw:1/a", b"http://user@gw/a", b"http:///a",
        b"/..", b"/a/../..", b"/%2e%2e", b"/a/%2e%2e/%2e%2e/b",
        b"/a%2fb", b"/a%2Fb", b"/a%5cb", b"/a\\b", b"/%00", b"/a%", b"/a%2", b"/a%zz",
        b"//a", b"/a//b", b"/a//", b"http://gw//a",
        b"/a#b", b"/a?x#b", b"/a b", b"/a\tb", b"/\xc3\xbc", b"/\x7f",
    ],
)  # fmt: skip
def test_refused(raw):
    with pytest.raises(ProtocolError) as caught:
        split_target(raw, b"gw")
    assert caught.value.error_status == 400


@pytest.mark.parametrize("raw", [b"/a/./b", b"/a/../b", b"/%61", b"/%c3%bc", b"/a/%2e/b", b"http://gw/a/."])
def test_other_spellings_may_be_refused_too(raw):
    with pytest.raises(ProtocolError, match="normal form, which is '/"):
        split_target(raw, b"gw", plain_only=True)


@pytest.mark.parametrize("raw", [b"/", b"/a?x=%61/../", b"/a%20b", b"/%C3%BC", b"/.well-known/x", b"http://gw"])
def test_and_plain_ones_pass_then(raw):
    assert split_target(raw, b"gw", plain_only=True) == split_target(raw, b"gw")


@given(st.text("/.%2eEfF5cC0aA-~?", max_size=25))
def test_what_is_accepted_is_in_its_final_form(tail):
    raw = b"/" + tail.encode()
    try:
        path, target = split_target(raw, b"gw")
    except ProtocolError:
        assume(False)
    assert split_target(target, b"gw") == (path, target)
    assert target.partition(b"?")[0] == path
    assert path.startswith(b"/")
    assert b".." not in path.split(b"/")
    assert b"//" not in path
