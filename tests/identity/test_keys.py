"""Who is calling."""

from __future__ import annotations

import hashlib

import pytest

from gateway.identity.keys import KeyRing
from gateway.request import Request

CLIENTS = {hashlib.sha256(b"secret-a").hexdigest(): "alice"}


def identify(ring, **headers):
    fields = {name.replace("_", "-").encode(): value for name, value in headers.items()}
    return ring.identify(Request(b"GET", b"/", b"/", fields))


@pytest.mark.parametrize("anonymous", [True, False])
def test_a_known_key_is_a_client_and_a_wrong_one_is_never_nobody(anonymous):
    ring = KeyRing(clients=CLIENTS, anonymous=anonymous)
    assert identify(ring, x_api_key=b"secret-a") == b"alice"
    for wrong in (b"secret-b", b"", b"SECRET-A", b"secret-a, secret-a", next(iter(CLIENTS)).encode()):
        assert identify(ring, x_api_key=wrong) is None


def test_no_key():
    assert identify(KeyRing(clients=CLIENTS)) == b""
    assert identify(KeyRing(clients=CLIENTS, anonymous=False)) is None
    assert identify(KeyRing()) == b""


def test_without_any_clients_every_key_is_wrong():
    assert identify(KeyRing(), x_api_key=b"secret-a") is None


def test_the_key_is_read_from_the_field_that_is_configured():
    ring = KeyRing(header=b"x-token", clients=CLIENTS, anonymous=False)
    assert identify(ring, x_token=b"secret-a") == b"alice"
    assert identify(ring, x_api_key=b"secret-a") is None
