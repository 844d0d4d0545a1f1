"""The corpus of requests against the reader alone, however the bytes are cut: the statuses, and what would be forwarded."""

from __future__ import annotations

import collections
import random
import re
from collections.abc import Iterable

import pytest

from gateway.errors import ProtocolError
from gateway.http.reader import ReadLimits, RequestReader
from gateway.http.serialise import serialise
from gateway.upstreams.forward import dropped_fields
from tests.conformance.case import MAX_BODY, MAX_HEADER_BYTES, MAX_HEADERS, MAX_REQUEST_LINE, Case
from tests.conformance.fuzz import pieces
from tests.conformance.requests import CASES

LIMITS = ReadLimits(MAX_REQUEST_LINE, MAX_HEADER_BYTES, MAX_HEADERS, MAX_BODY)
DROPPED = dropped_fields(b"x-api-key")
TOO_MUCH = (413, 414, 431)


def outcome(parts: Iterable[bytes]) -> tuple[list[bytes], int | None, RequestReader]:
    reader = RequestReader(LIMITS, b"127.0.0.1")
    status = None
    try:
        for part in parts:
            reader.feed(part)
    except ProtocolError as error:
        status = error.error_status
        assert len(str(error)) < 200
    return [wire(request) for request in reader.ready], status, reader


def wire(request) -> bytes:
    request.id = b"1"
    request.via = b"x-forwarded-for: 127.0.0.1\r\nx-forwarded-proto: http\r\nvia: 1.1 sluicegate\r\n"
    return masked(serialise(request, request.target, b"ORIGIN", b"x-request-timeout: 1ms\r\n", DROPPED))


def masked(data: bytes) -> bytes:
    return re.sub(rb"((?:x-request-(?:id|timeout)|via): )[^\r]*", rb"\1*", data)


def test_there_are_enough_and_each_has_its_name():
    assert len(CASES) >= 200
    doubled = [name for name, count in collections.Counter(case.id for case in CASES).items() if count > 1]
    assert not doubled


@pytest.mark.parametrize("how", ["whole", "bytes", "in two", "cut anyhow"])
@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_case(case: Case, how: str):
    raw, size = case.raw, len(case.raw)
    if how == "whole":
        judge(case, [raw[at : at + 65_536] for at in range(0, size, 65_536)])
    elif how == "bytes":
        judge(case, [raw[at : at + 1] for at in range(size)], cut=True)
    elif how == "in two":
        for at in range(1, min(size, 400)) if size < 5000 else ():
            judge(case, [raw[:at], raw[at:]], cut=True)
    else:
        draw = random.Random(case.id)
        for _ in range(10):
            judge(case, pieces(draw, raw), cut=True)


def judge(case: Case, parts: Iterable[bytes], *, cut: bool = False) -> None:
    seen, status, reader = outcome(parts)
    assert seen == [once.wire() for once in case.forwards]
    if case.waits:
        assert status is None
        assert reader.in_head or reader.in_body
    elif len(case.answers) > len(case.forwards):
        expected = case.answers[-1]
        if expected in TOO_MUCH and cut:
            assert status in TOO_MUCH  # in pieces it may be seen that it is too much before it is seen of what
        else:
            assert status == expected
    elif not case.closes:
        assert status is None
    assert all(request.keep_alive for request in list(reader.ready)[:-1])
    if reader.ready and len(case.answers) == len(case.forwards):
        assert reader.ready[-1].keep_alive is not case.closes
