"""Routes that answer by themselves."""

from __future__ import annotations

import pytest

from gateway.request import Request
from gateway.routing import template
from gateway.routing.replies import Fixed, Redirect
from gateway.routing.words import parse


def words(text, *captures):
    return parse(text, captures, {})


@pytest.mark.parametrize(
    ("redirect", "expected"),
    [
        (Redirect(307, path=words("/new")), b"/new?q=1"),
        (Redirect(307, path=words("/new"), keep_query=False), b"/new"),
        (Redirect(307, prefixes=((b"/old/", b"/new/"),)), b"/new/x/y?q=1"),
        (Redirect(307, scheme=b"https"), b"https://gw.example/old/x/y?q=1"),
        (Redirect(307, scheme=b"https", port=8443), b"https://gw.example:8443/old/x/y?q=1"),
        (Redirect(307, host=words("new.example")), b"//new.example/old/x/y?q=1"),
        (Redirect(307, scheme=b"http", host=words("{a}.{host}", "a"), template=template.parse("/old/{a}/y")), b"http://x.gw.example/old/x/y?q=1"),
        (Redirect(307, path=words("/m/{a}", "a"), template=template.parse("/old/{a}/y")), b"/m/x?q=1"),
    ],
)  # fmt: skip
def test_where(redirect, expected):
    request = Request(b"GET", b"/old/x/y?q=1", b"/old/x/y", {b"host": b"GW.example:8080"})
    response = redirect.response(request)
    assert response.status == 307
    assert response.headers == [(b"location", expected)]


def test_a_path_never_becomes_a_host():
    request = Request(b"GET", b"/oldevil.example/x", b"/oldevil.example/x", {})
    assert Redirect(301, prefixes=((b"/old", b"/"),)).response(request).headers == [(b"location", b"/evil.example/x")]
    request = Request(b"GET", b"/old/evil.example", b"/old/evil.example", {})
    assert Redirect(301, prefixes=((b"/old", b"/"),)).response(request).headers == [(b"location", b"/evil.example")]


@pytest.mark.parametrize("tenant", [b"a@evil.example", b"evil.example:80@", b"a'b", b"a;b"])
def test_a_capture_that_is_no_host_name_leaves_the_answer_relative(tenant):
    redirect = Redirect(307, scheme=b"https", host=words("{a}.example", "a"), template=template.parse("/t/{a}"))
    request = Request(b"GET", b"/t/" + tenant, b"/t/" + tenant, {})
    assert redirect.response(request).headers == [(b"location", b"/t/" + tenant)]


def test_without_a_host_there_is_none_to_send_to():
    request = Request(b"GET", b"/x", b"/x", {}, minor=0)
    assert Redirect(307, scheme=b"https").response(request).headers == [(b"location", b"/x")]


def test_fixed():
    request = Request(b"GET", b"/", b"/", {})
    assert Fixed(200, b"text/plain", b"hello").response(request).headers == [(b"content-type", b"text/plain")]
    assert Fixed(204, b"text/plain", b"").response(request).headers == []
