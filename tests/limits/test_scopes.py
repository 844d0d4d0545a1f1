"""What buckets are keyed by."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.limits.memory import Memory
from gateway.limits.scopes import (
    AddressScope,
    ApiKeyScope,
    ClientScope,
    GlobalScope,
    HeaderScope,
    JoinedScope,
    ModelScope,
    PathScope,
    RouteScope,
    TenantScope,
    bucket_key,
    plain,
)
from gateway.request import Request
from gateway.routing.template import parse


def request(client=b"", peer=b"10.0.0.9", tenant=b"", path=b"/p", **headers):
    request = Request(b"GET", path, path, {k.replace("_", "-").encode(): v for k, v in headers.items()}, peer=peer)
    request.client, request.tenant = client, tenant
    return request


def key(scope, *args, **how):
    return scope.key(request(*args, **how), b"digits")


def test_the_words():
    assert key(ClientScope(), b"alice") == b"alice"
    assert key(ClientScope()) == b"10.0.0.9"
    assert key(TenantScope(), b"alice", tenant=b"acme") == b"acme"
    assert key(TenantScope(), b"alice") == b"alice"
    assert key(RouteScope()) == b"digits"
    assert key(GlobalScope()) == b"*"
    assert key(PathScope(), path=b"/a/b") == b"/a/b"
    assert key(HeaderScope(b"x-team"), x_team=b"blue") == b"blue"
    assert key(HeaderScope(b"x-team")) == key(HeaderScope(b"x-team"), x_team=b"") == b"-"


@pytest.mark.parametrize(
    ("scope", "peer", "expected"),
    [
        (AddressScope(), b"10.1.2.3", b"10.1.2.3"),
        (AddressScope(), b"2001:db8:1:2:3:4:5:6", b"2001:db8:1:2::/64"),
        (AddressScope(24, 48), b"10.1.2.3", b"10.1.2.0/24"),
        (AddressScope(24, 48), b"2001:db8:1:2:3:4:5:6", b"2001:db8:1::/48"),
        (AddressScope(20, 128), b"10.1.18.3", b"10.1.16.0/20"),
        (AddressScope(20, 128), b"2001:DB8::1", b"2001:db8::1"),
        (AddressScope(24, 64), b"::ffff:10.1.2.3", b"10.1.2.0/24"),  # an IPv4 client of an IPv6 socket
        (AddressScope(24, 64), b"fe80::1%eth0", b"fe80::/64"),
        (AddressScope(24, 64), b"unix", b"unix"),
        (AddressScope(24, 64), b"", b"#" + b"cae66941d9efbd404e4d88758ea67670"),
    ],
)
def test_addresses_by_prefix(scope, peer, expected):
    assert key(scope, peer=peer) == expected
    assert key(scope, peer=peer) == expected  # from memory


def test_what_is_remembered_of_addresses_and_keys_is_bounded_together():
    memory = Memory(100)
    nets, keys = AddressScope(24, memory=memory), ApiKeyScope(b"x-api-key", memory)
    for i in range(1000):
        assert key(nets, peer=b"10.0.%d.%d" % (i // 256, i % 256)) == b"10.0.%d.0/24" % (i // 256)
        assert key(keys, x_api_key=b"%d" % i).startswith(b"key-")
        assert len(memory) <= 100


def test_two_keys_of_one_client_have_buckets_of_their_own_and_are_not_written_down():
    scope = ApiKeyScope(b"x-api-key")
    one, two = (key(scope, b"alice", x_api_key=secret) for secret in (b"secret-1", b"secret-2"))
    assert one != two
    assert b"secret" not in one
    assert key(scope, b"alice", x_api_key=b"secret-1") == one
    assert key(scope) == b"10.0.0.9"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/v1/models/digits:predict", b"digits"),
        (b"/v1/models/digits/versions/2:predict", b"digits"),
        (b"/v2/models/digits/infer", b"digits"),
        (b"/v2/models/digits", b"digits"),
        (b"/v1/models/", b"-digits-route"),
        (b"/classify", b"-digits-route"),
    ],
)
def test_the_model_of_a_path(path, expected):
    assert ModelScope().key(request(path=path), b"digits-route") == expected


def test_the_model_of_a_template():
    scope = ModelScope(parse("/infer/{team}/{model}/*"))
    assert key(scope, path=b"/infer/blue/cats/1") == b"cats"
    assert key(scope, path=b"/other") == b"-digits"
    assert key(ModelScope(parse("/infer/{team}")), path=b"/v1/models/m:predict") == b"m"


def test_a_combination_has_a_bucket_for_each_pair():
    both = JoinedScope([ClientScope(), ModelScope()])
    assert key(both, b"alice", path=b"/v1/models/m:predict") == b"alice|m"


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_whatever_clients_send_keys_stay_short_and_apart(one, two):
    assert len(plain(one)) <= 64
    assert not set(plain(one)) & set(b"|{}\r\n ")
    if one != two:
        assert plain(one) != plain(two)


def test_the_first_part_of_a_key_is_its_hash_tag():
    assert bucket_key(b"gw:per-client:", b"alice") == b"gw:per-client:{alice}"
    assert bucket_key(b"gw:both:", b"alice|m|x") == b"gw:both:{alice}|m|x"
