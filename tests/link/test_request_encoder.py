"""What a gateway says of a request on a link, and what it remembers of having said."""

from __future__ import annotations

import pytest

from gateway.link.frames import Settings
from gateway.link.request_encoder import RequestEncoder
from tests.link.peer import DROPPED, request


def said(link, asked):
    """The REQUEST's start, fields beside the head, and head."""
    out = []
    link.encode(out, 1, asked, asked.target, b"authority", 1_000_000, DROPPED, 0, end=True)
    return out


def test_a_head_is_said_in_full_until_it_has_a_slot():
    link = RequestEncoder(Settings(slots=4))
    heads = [said(link, request())[2] for _ in range(3)]
    assert heads[0] and heads[1] == heads[0] and not heads[2]


@pytest.mark.parametrize(
    "fields",
    [{"tracestate": b"t" * 40_000, "baggage": b"b" * 40_000}, {"baggage": b"b" * 65_536}, {"tracestate": b"\r"}],
    ids=["too much in all", "one too large", "not a value"],
)
def test_a_request_that_cannot_be_said_takes_no_slot(fields):
    link = RequestEncoder(Settings(slots=4))
    said(link, request())  # seen once: the next time it would be remembered
    with pytest.raises(ValueError, match="link"):
        said(link, request(**fields))
    assert said(link, request())[2], "the backend has not been told this head yet"
    assert not said(link, request())[2]
