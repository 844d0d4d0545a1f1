"""Text with places to fill in."""

from __future__ import annotations

import pytest

from gateway.request import Request
from gateway.routing.words import VARIABLES, names, parse


def request():
    one = Request(b"POST", b"/a/b?c=d", b"/a/b", {b"host": b"Api.Example:80"}, peer=b"10.0.0.9")
    one.client, one.id = b"alice", b"id-7"
    return one


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", b"plain"),
        ("", b""),
        ("{model}", b"digits"),
        ("/v2/{model}/{version}", b"/v2/digits/7"),
        ("{client} {peer} {request_id} {method} {path} {host}", b"alice 10.0.0.9 id-7 POST /a/b api.example"),
        ("{route}/{pool}", b"r/p"),
        ("{{{model}}}", b"{digits}"),
    ],
)
def test_say(text, expected):
    words = parse(text, ("version", "model"), {"route": "r", "pool": "p"})
    assert words.say(request(), (b"7", b"digits")) == expected


def test_what_is_known_beforehand_is_one_part():
    assert len(parse("a{route}b{{c{pool}", (), {"route": "r", "pool": "p"}).parts) == 1


@pytest.mark.parametrize("text", ["{", "a}", "{a{b}", "}{"])
def test_half_a_brace(text):
    with pytest.raises(ValueError, match="without its other half"):
        names(text)


def test_an_unknown_name():
    with pytest.raises(ValueError, match=r"'\{modle\}', which nothing fills in"):
        parse("{modle}", ("model",), {})


def test_every_variable_has_a_value():
    assert all(parse(f"{{{name}}}", (), {}).say(request(), ()) for name in VARIABLES)
