"""Who the client is, when proxies stand in between, and that nobody can be somebody else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.forwarded import MAX_HOPS, TrustedProxies, read_forwarded, read_x_forwarded
from gateway.http.origin import Forwarding, Origin
from gateway.request import Request

PROXIES = TrustedProxies(("10.0.0.0/8", "::1", "2001:db8:1::/48"), unix=True)
PEER = b"10.0.0.1"


def x(said, scheme=b"", host=b""):
    told = read_x_forwarded(said, scheme, host, PEER, PROXIES)
    return told.client, told.hops


def f(said):
    told = read_forwarded(said, PEER, PROXIES)
    return told.client, told.hops


@pytest.mark.parametrize(
    ("said", "client", "hops"),
    [
        (b"", PEER, []),
        (b"192.0.2.1", b"192.0.2.1", []),
        (b"192.0.2.1:4711", b"192.0.2.1", []),
        (b"[2001:DB8::1]:4711", b"2001:db8::1", []),
        (b"2001:DB8:0::1", b"2001:db8::1", []),
        (b"::ffff:192.0.2.1", b"192.0.2.1", []),
        (b"6.6.6.6, 192.0.2.1", b"192.0.2.1", []),
        (b"6.6.6.6, 192.0.2.1, 10.9.9.9", b"192.0.2.1", [b"10.9.9.9"]),
        (b"6.6.6.6,192.0.2.1,10.8.8.8 ,\t10.9.9.9", b"192.0.2.1", [b"10.8.8.8", b"10.9.9.9"]),
        (b"192.0.2.1, ::ffff:10.9.9.9", b"192.0.2.1", [b"10.9.9.9"]),
        (b"10.3.3.3, 10.2.2.2", b"10.3.3.3", [b"10.2.2.2"]),  # proxies all the way: the first of them
        (b"10.1.1.1, 10.0.0.1", b"10.1.1.1", [PEER]),
        # what cannot be read ends the list, and whoever is left of it gains nothing
        (b"6.6.6.6, unknown", PEER, []),
        (b"6.6.6.6, ", PEER, []),
        (b"6.6.6.6,", PEER, []),
        (b",", PEER, []),
        (b"6.6.6.6, 192.0.2.256", PEER, []),
        (b"6.6.6.6, 192.0.2.01", PEER, []),
        (b"6.6.6.6, example.org", PEER, []),
        (b"6.6.6.6, 192.0.2.1 10.0.0.1", PEER, []),
        (b"6.6.6.6, " + b"1" * 5000, PEER, []),
        (b"6.6.6.6, garbage, 10.9.9.9", b"10.9.9.9", []),
        (b"unix", PEER, []),
        (b"for=192.0.2.1", PEER, []),
    ],
)  # fmt: skip
def test_x_forwarded_for(said, client, hops):
    assert x(said) == (client, hops)


def test_scheme_and_host_are_the_last_and_only_what_they_can_be():
    def told(scheme, host):
        found = read_x_forwarded(b"192.0.2.1", scheme, host, PEER, PROXIES)
        return found.scheme, found.host

    assert told(b"HTTPS", b"a.example:8443") == (b"https", b"a.example:8443")
    assert told(b"http, https", b"evil, [::1]:1") == (b"https", b"[::1]:1")
    for scheme in (b"", b"ftp", b"https\tx", b"https,"):
        assert told(scheme, b"")[0] == b""
    for host in (b"", b"a b", b"a/b", b'a"', b"a:b", b"x" * 300):
        assert told(b"", host)[1] == b""


@pytest.mark.parametrize(
    ("said", "client", "hops"),
    [
        (b"", PEER, []),
        (b"for=192.0.2.1", b"192.0.2.1", []),
        (b'For="192.0.2.1:80";proto=https;by=10.0.0.1', b"192.0.2.1", []),
        (b'for="[2001:db8::1]:4711"', b"2001:db8::1", []),
        (b"for=6.6.6.6, for=192.0.2.1;host=a, for=10.9.9.9", b"192.0.2.1", [b"10.9.9.9"]),
        (b'for=6.6.6.6;x="a,b", for=192.0.2.1', b"192.0.2.1", []),
        (b'for=192.0.2.1;x="a,b\\",c"', b"192.0.2.1", []),
        (b"for=192.0.2.1;", b"192.0.2.1", []),
        # a quote that a client left open does not swallow what the proxy wrote after it
        (b'for=6.6.6.6;x=", for=192.0.2.1', b"192.0.2.1", []),
        (b'for=6.6.6.6;x="\\, for="192.0.2.1"', b"192.0.2.1", []),
        (b'", for="[2001:db8::1]"', b"2001:db8::1", []),
        (b"for=6.6.6.6, for=unknown", PEER, []),
        (b"for=6.6.6.6, for=_hidden", PEER, []),
        (b"for=6.6.6.6, proto=https", PEER, []),
        (b"for=6.6.6.6, for=192.0.2.1;for=192.0.2.2", PEER, []),
        (b"for=6.6.6.6, for = 192.0.2.1", PEER, []),
        (b"for=6.6.6.6, 192.0.2.1", PEER, []),
        (b'for=6.6.6.6, for="192.0.2.1', PEER, []),
        (b"for=6.6.6.6, ", PEER, []),
    ],
)
def test_forwarded(said, client, hops):
    assert f(said) == (client, hops)


def test_forwarded_tells_scheme_and_host_of_the_clients_own_hop():
    told = read_forwarded(b'for=6.6.6.6;proto=ftp, for=192.0.2.1;proto=HTTPS;host="a:1", for=10.2.2.2;proto=http', PEER, PROXIES)  # fmt: skip
    assert (told.client, told.scheme, told.host) == (b"192.0.2.1", b"https", b"a:1")


def test_the_walk_is_bounded():
    client, hops = x(b"192.0.2.1, " + b", ".join([b"10.0.0.2"] * 3000))
    assert client == b"10.0.0.2"
    assert len(hops) <= MAX_HOPS


JUNK = st.text(alphabet='0123456789abcdef.:,;="\\[]% \tfor_unkwpti', max_size=120).map(str.encode)


@given(JUNK)
def test_whatever_a_client_writes_its_proxys_word_stands(junk):
    assert x(junk + b", 192.0.2.1")[0] == b"192.0.2.1"
    assert f(junk + b", for=192.0.2.1")[0] == b"192.0.2.1"
    assert f(junk + b', for="[2001:db8::7]:1";proto=https')[0] == b"2001:db8::7"


@given(JUNK)
def test_nothing_unreadable_is_ever_a_client(junk):
    for client, hops in (x(junk), f(junk)):
        for address in (client, *hops):
            assert PROXIES.hop(address).address == address


def introduced(origin, **headers):
    fields = {name.replace("_", "-").encode(): value for name, value in headers.items()}
    request = Request(b"GET", b"/", b"/", fields, peer=origin.address)
    origin.introduce(request)
    return request.peer, request.via


def test_an_untrusted_peer_is_the_client_whatever_it_says():
    origin = Origin(b"192.0.2.9", Forwarding(PROXIES))
    for _ in range(2):
        peer, via = introduced(origin, x_forwarded_for=b"6.6.6.6", x_forwarded_proto=b"https", host=b"a")
        assert (peer, via) == (b"192.0.2.9", b"x-forwarded-for: 192.0.2.9\r\nx-forwarded-proto: http\r\n")


def test_without_trusted_proxies_nobody_is_believed():
    for address in (b"127.0.0.1", b"10.0.0.1", b"unix"):
        assert not Origin(address, Forwarding()).trusted


def test_a_trusted_peer_introduces_many():
    origin = Origin(PEER, Forwarding(PROXIES), secure=True)
    assert introduced(origin, host=b"a") == (PEER, b"x-forwarded-for: 10.0.0.1\r\nx-forwarded-proto: https\r\n")
    for client in (b"192.0.2.1", b"192.0.2.2", b"192.0.2.2", b"192.0.2.1"):
        peer, via = introduced(origin, host=b"a", x_forwarded_for=b"6.6.6.6, " + client, x_forwarded_proto=b"http")
        assert peer == client
        assert via == b"x-forwarded-for: %s, 10.0.0.1\r\nx-forwarded-proto: http\r\n" % client
    assert introduced(origin, host=b"a")[0] == PEER


def test_all_the_fields():
    tells = frozenset(("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"))
    origin = Origin(b"::ffff:10.0.0.1", Forwarding(PROXIES, b"forwarded", tells))
    peer, via = introduced(
        origin, host=b"inner", forwarded=b'for="[2001:db8::1]";proto=https;host=outer', x_forwarded_for=b"6.6.6.6"
    )
    assert peer == b"2001:db8::1"
    assert via.split(b"\r\n") == [
        b"x-forwarded-for: 2001:db8::1, 10.0.0.1",
        b"x-forwarded-proto: https",
        b"x-forwarded-host: outer",
        b'forwarded: for="[2001:db8::1]";proto=https;host="outer", for=10.0.0.1',
        b"",
    ]
    plain = Origin(b"192.0.2.1", Forwarding(PROXIES, b"forwarded", tells))
    for host in (b"one", b"two"):
        assert b"x-forwarded-host: %s\r\n" % host in introduced(plain, host=host, x_forwarded_host=b"evil")[1]
    assert introduced(Origin(PEER, Forwarding(PROXIES, tells=frozenset())), x_forwarded_for=b"192.0.2.1") == (b"192.0.2.1", b"")  # fmt: skip


def test_via_comes_behind_what_earlier_hops_said():
    for proxies in (PROXIES, TrustedProxies()):
        origin = Origin(PEER, Forwarding(proxies, tells=frozenset(), via=b"ours"))
        for _ in range(2):
            assert introduced(origin)[1] == b"via: 1.1 ours\r\n"
            assert introduced(origin, via=b"1.0 fred, 2 bob (x)")[1] == b"via: 1.0 fred, 2 bob (x), 1.1 ours\r\n"
        old = Request(b"GET", b"/", b"/", {}, peer=PEER, minor=0)
        origin.introduce(old)
        assert old.via == b"via: 1.0 ours\r\n"


def test_a_gateway_that_says_nothing_leaves_via_as_it_is():
    origin = Origin(PEER, Forwarding(PROXIES, tells=frozenset()))
    assert introduced(origin)[1] == b""
    assert introduced(origin, via=b"1.0 fred")[1] == b"via: 1.0 fred\r\n"


def test_a_unix_socket_has_no_address():
    assert introduced(Origin(b"unix", Forwarding()))[1].startswith(b"x-forwarded-for: unknown\r\n")
    told = introduced(Origin(b"unix", Forwarding(PROXIES)), x_forwarded_for=b"192.0.2.1")
    assert (told[0], told[1].split(b"\r\n")[0]) == (b"192.0.2.1", b"x-forwarded-for: 192.0.2.1, unknown")
    assert not Origin(b"unix", Forwarding(PROXIES), proxied=True).trusted, "a socket on another machine proves nothing"


def test_groups():
    def group(address):
        return Origin(address, Forwarding()).group

    assert group(b"192.0.2.1") == group(b"::ffff:192.0.2.1") == b"192.0.2.1"
    assert group(b"2001:db8:0:1::1") == group(b"2001:db8:0:1:ffff::2") != group(b"2001:db8:0:2::1")
    assert group(b"fe80::1%eth0") == group(b"fe80::2")
    assert group(b"unix") == b""


def test_a_reload_decides_anew():
    origin = Origin(PEER, Forwarding())
    assert introduced(origin, x_forwarded_for=b"192.0.2.1")[0] == PEER
    origin.decide(Forwarding(PROXIES))
    assert introduced(origin, x_forwarded_for=b"192.0.2.1")[0] == b"192.0.2.1"
    origin.decide(Forwarding())
    assert introduced(origin, x_forwarded_for=b"192.0.2.1") == (
        PEER, b"x-forwarded-for: 10.0.0.1\r\nx-forwarded-proto: http\r\n",
    )  # fmt: skip
