"""Who may claim to be urgent."""

import pytest

from gateway.admission.priority import PriorityRules
from gateway.request import Request

CRITICAL, DEFAULT, BATCH = range(3)
RULES = {
    own: PriorityRules(own, b"x-priority", frozenset((b"alice",))) for own in (CRITICAL, DEFAULT, BATCH)
}  # fmt: skip


def request(client=b"", wish=None):
    one = Request(b"POST", b"/", b"/", {} if wish is None else {b"x-priority": wish})
    one.client = client
    return one


@pytest.mark.parametrize(
    ("own", "client", "wish", "found"),
    [
        (DEFAULT, b"bob", None, DEFAULT),
        (DEFAULT, b"bob", b"batch", BATCH),  # everybody may step back
        (DEFAULT, b"", b"batch", BATCH),
        (DEFAULT, b"bob", b"critical", DEFAULT),  # and not forward
        (DEFAULT, b"", b"critical", DEFAULT),
        (BATCH, b"bob", b"default", BATCH),
        (DEFAULT, b"alice", b"critical", CRITICAL),  # but those named may
        (BATCH, b"alice", b"default", DEFAULT),
        (CRITICAL, b"bob", b"default", DEFAULT),
        (CRITICAL, b"bob", b"critical", CRITICAL),
        (DEFAULT, b"alice", b"CRITICAL", DEFAULT),  # no priority, so no claim
        (DEFAULT, b"alice", b"critical, critical", DEFAULT),
        (DEFAULT, b"alice", b"", DEFAULT),
    ],
)
def test_claims(own, client, wish, found):
    assert RULES[own].of(request(client, wish)) == found


def test_without_a_header_the_route_alone_decides():
    assert PriorityRules(BATCH).of(request(b"alice", b"critical")) == BATCH
    assert PriorityRules().of(request()) == DEFAULT
