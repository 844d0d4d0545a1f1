"""What requests cost."""

from __future__ import annotations

import asyncio

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.limits.costs import LARGEST, NONSENSE, UNKNOWN, BodyCost, Cost, HeaderCost, RowsCost, rows
from gateway.request import Request, Response
from gateway.stream import Stream


def request(body=b"", stream=None, **headers):
    request = Request(b"POST", b"/", b"/", {k.replace("_", "-").encode(): v for k, v in headers.items()}, body)
    request.stream = stream
    return request


def test_a_constant_cost_needs_no_settling():
    one = Cost(2.5)
    assert (one.of(request()), one.constant, one.settles) == (2.5, True, False)


@pytest.mark.parametrize(("size", "expected"), [(0, 1), (1, 1), (1024, 1), (1025, 2), (10_240, 10)])
def test_bytes_are_counted_in_units_begun(size, expected):
    assert BodyCost(1024).of(request(b"x" * size)) == expected
    assert BodyCost(1024).ended(request(b"x" * size)) == UNKNOWN


def test_a_stream_costs_its_stated_length_or_what_came_in_the_end():
    loop = asyncio.new_event_loop()
    stated, chunked = (Stream(loop, lambda: None, lambda: None, length=length) for length in (5000, None))
    cost = BodyCost(1000)
    assert (cost.of(request(stream=stated)), cost.ended(request(stream=stated))) == (5, UNKNOWN)
    assert cost.of(request(stream=chunked)) == 1
    chunked.feed(b"x" * 7001)
    assert cost.ended(request(stream=chunked)) == 8
    loop.close()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"instances": [[1], [2], [3]]}, 3),
        ({"signature_name": "s", "examples": [{"a": 1}, {"a": 2}]}, 2),
        ({"inputs": [[1], [2]]}, 2),
        ({"inputs": {"a": [1, 2, 3], "b": [1, 2, 3]}}, 3),
        ({"inputs": 7}, 1),
        ({"inputs": {"a": 7}}, 1),
        ({"inputs": [{"name": "x", "shape": [4, 2], "datatype": "FP32", "data": [0] * 8}]}, 4),
        ({"inputs": [{"name": "x", "shape": [], "datatype": "FP32", "data": [0]}]}, -1),
        ({"inputs": [{"name": "x", "shape": [-4], "datatype": "FP32"}]}, -1),
        ({"inputs": [{"name": "x", "shape": "4", "datatype": "FP32"}]}, -1),
        ({"inputs": {}}, -1),
        ({"instances": []}, 0),
        ({"something": 1}, 0),
        ([1, 2], -1),
        (7, -1),
    ],
)
def test_rows(body, expected):
    assert rows(orjson.dumps(body)) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"instances": [[NaN], [1]]}',
        '{"instances": [1]}'.encode("utf-16-be"),
        b'{"instances": [1], "instances": [1, 2, 3]}',
        b'{"inputs": [1, 2], "x": {"inputs": 1}}',
        '\ufeff{"instances": [1]}'.encode(),
    ],
)
def test_a_body_that_cannot_be_counted_or_says_its_rows_twice(body):
    assert rows(body) == -1
    assert RowsCost(2.0, 50.0).of(request(body)) == 50.0


@pytest.mark.parametrize("body", [b"", b" ", b"\x89PNG...", b"[1, 2]", b"text", b'{"text": "hi"}', b"{}"])
def test_what_is_no_batch_costs_as_much_as_a_row(body):
    assert RowsCost(2.0, 50.0).of(request(body)) == 2.0


def test_what_rows_cost():
    body = orjson.dumps({"instances": [1, 2, 3]})
    assert RowsCost(2.0, 50.0).of(request(body)) == 6.0
    assert RowsCost(2.0, 50.0).of(request(b'{"instances": []}')) == 2.0
    assert RowsCost(2.0, 50.0).of(request(b" " * LARGEST + body)) == 50.0
    raw = orjson.dumps({"inputs": [{"shape": [4, 1]}]})
    length = b"%d" % len(raw)
    assert RowsCost(1.0, 50.0).of(request(raw + b"\0\1\2", inference_header_content_length=length)) == 4.0
    assert RowsCost(1.0, 50.0).of(request(raw, inference_header_content_length=b"x")) == 50.0
    assert RowsCost(1.0, 50.0).of(request(b"\0\1\2", inference_header_content_length=b"0")) == 50.0  # raw tensors alone


@given(st.binary(max_size=300))
def test_no_body_breaks_the_counting(body):
    assert rows(body) >= -1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"12", 12.0), (b"0", 0.0), (b"1.5", 1.5), (b"100000000", 1e8), (None, UNKNOWN),
        (b"100000000.1", NONSENSE), (b"1e3", NONSENSE), (b"-1", NONSENSE), (b"+1", NONSENSE), (b"nan", NONSENSE),
        (b"inf", NONSENSE), (b"", NONSENSE), (b"12 tokens", NONSENSE), (b"12, 13", NONSENSE), (b"1_000", NONSENSE),
        (b"9" * 30, NONSENSE), (b"1" * 5000, NONSENSE), (b"0x10", NONSENSE), (b"1.", NONSENSE), (b".5", NONSENSE),
    ],
)  # fmt: skip
def test_what_a_backend_says_afterwards(value, expected):
    cost = HeaderCost(b"x-tokens", 10.0)
    assert cost.of(request()) == 10.0
    assert cost.answered(Response(200, [] if value is None else [(b"x-tokens", value)])) == expected
