"""The rungs: what they say and what they ask for."""

from __future__ import annotations

from gateway.degrade.ladder import PoolRung, StaleRung, StaticRung
from gateway.request import Request


def request(target=b"/v1/models/digits:predict?x=1"):
    return Request(b"POST", target, target.partition(b"?")[0], {})


def test_what_each_rung_says():
    assert StaleRung().says(12) == b"stale;age=12"
    assert PoolRung("digits-small").says() == b"fallback;pool=digits-small"
    assert StaticRung(200, b"application/json", b"{}").says() == b"static"


def test_labels():
    assert StaleRung().label == "stale"
    assert PoolRung("digits-small").label == "pool:digits-small"
    assert StaticRung(200, b"application/json", b"{}").label == "static"


def test_the_first_matching_prefix_is_rewritten_once():
    rung = PoolRung("p", ((b"/v1/models/digits:", b"/v1/models/small:"), (b"/v1/", b"/v9/")))
    assert rung.target(request()) == b"/v1/models/small:predict?x=1"
    assert rung.target(request(b"/v1/other")) == b"/v9/other"
    assert rung.target(request(b"/other/v1/")) == b"/other/v1/"
    assert PoolRung("p").target(request()) == request().target


def test_a_static_answer_is_made_anew_each_time():
    rung = StaticRung(203, b"application/json", b'{"a":1}')
    first = rung.response()
    first.headers.append((b"degraded", b"static"))
    assert rung.response().headers == [(b"content-type", b"application/json")]
    assert (first.status, first.body) == (203, b'{"a":1}')
