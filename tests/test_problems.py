"""Refusals: RFC 9457, and the model protocols' own shape on their paths."""

from __future__ import annotations

import orjson
import pytest

from gateway.problems import NO_CAPACITY, NO_ROUTE, OVER_LIMIT, refuse
from gateway.request import Request


def request(path=b"/x", id=b"abc-1"):
    request = Request(b"GET", path, path, {})
    request.id = id
    return request


def test_the_shape():
    response = refuse(OVER_LIMIT, request(), "too much", retry_after=2.1, members={"violated-policies": ["p"]})
    assert response.status == 429
    assert response.header(b"content-type") == b"application/problem+json"
    assert response.header(b"retry-after") == b"3"
    assert orjson.loads(response.body) == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Request quota exceeded",
        "status": 429,
        "detail": "too much",
        "violated-policies": ["p"],
        "instance": "abc-1",
    }


@pytest.mark.parametrize("path", [b"/v1/models/digits:predict", b"/v2/models/digits/infer"])
def test_a_model_protocol_keeps_its_own_shape(path):
    response = refuse(NO_CAPACITY, request(path), "try again", retry_after=1)
    assert response.header(b"content-type") == b"application/json"
    assert response.header(b"retry-after") == b"1"
    assert orjson.loads(response.body) == {"error": "No backend can answer now: try again"}


@pytest.mark.parametrize(("seconds", "said"), [(0, b"1"), (0.2, b"1"), (1, b"1"), (1.01, b"2"), (None, None)])
def test_retry_after_is_whole_seconds_and_never_too_early(seconds, said):
    assert refuse(NO_CAPACITY, None, "x", retry_after=seconds).header(b"retry-after") == said


def test_without_a_request_there_is_no_instance():
    body = orjson.loads(refuse(NO_ROUTE, None, "x").body)
    assert body == {"type": "about:blank", "title": "Not found", "status": 404, "detail": "x"}
    assert "instance" not in orjson.loads(refuse(NO_ROUTE, request(id=b""), "x").body)


def test_what_a_client_sent_cannot_break_out_of_the_body():
    response = refuse(NO_ROUTE, request(), 'no "route" \r\nX: y')
    assert orjson.loads(response.body)["detail"] == 'no "route" \r\nX: y'
    assert all(b"\n" not in value for _, value in response.headers)


def test_the_callers_headers_are_not_changed():
    mine = [(b"allow", b"GET")]
    refuse(NO_ROUTE, None, "x", headers=mine, retry_after=1)
    assert mine == [(b"allow", b"GET")]
