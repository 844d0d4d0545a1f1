"""What a route changes on the way."""

from __future__ import annotations

import pytest

from gateway.request import Request, Response
from gateway.routing import template
from gateway.routing.edits import Edits, HeaderEdits, Rewrite
from gateway.routing.fields import OWN_REQUEST
from gateway.routing.words import parse
from gateway.upstreams.forward import dropped_fields

TEMPLATE = template.parse("/v1/models/{model}:predict")


def words(text, captures=("model",)):
    return parse(text, captures, {})


def request(target=b"/v1/models/digits:predict?x=1", **headers):
    fields = {b"host": b"gw", **{name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}}
    one = Request(b"POST", target, target.partition(b"?")[0], fields, b"body", peer=b"10.0.0.9")
    one.client, one.id, one.received = b"alice", b"id-1", 5
    return one


def test_without_edits_of_the_request_it_is_the_same_object():
    one = request()
    assert Edits(response=HeaderEdits(remove=frozenset((b"server",)))).outgoing(one) is one


def test_the_request_itself_stays_as_it_came():
    one = request(x_a="1")
    edits = Edits(
        template=TEMPLATE, rewrite=Rewrite(path=words("/m/{model}")), host=words("{model}.internal"),
        request=HeaderEdits(frozenset((b"x-a",)), ((b"x-b", words("{client}")),), ()),
    )  # fmt: skip
    sent = edits.outgoing(one)
    assert (sent.target, sent.path, sent.headers) == (
        b"/m/digits?x=1", b"/v1/models/digits:predict", {b"host": b"digits.internal", b"x-b": b"alice"},
    )  # fmt: skip
    assert (one.target, one.headers) == (b"/v1/models/digits:predict?x=1", {b"host": b"gw", b"x-a": b"1"})
    for name in ("method", "body", "peer", "client", "id", "received"):
        assert getattr(sent, name) == getattr(one, name), name


@pytest.mark.parametrize(
    ("rewrite", "expected"),
    [
        (Rewrite(path=words("/m/{model}")), b"/m/digits?x=1"),
        (Rewrite(path=words("/{model}/..")), b"/v1/models/digits:predict?x=1"),  # never up
        (Rewrite(prefixes=((b"/v1/", b"/v2/"),)), b"/v2/models/digits:predict?x=1"),
        (Rewrite(after=((b"/v1/models/digits", b"/v1/models/small"),)), b"/v1/models/small:predict?x=1"),
        (Rewrite(path=words("/m/{model}"), after=((b"/m/", b"/n/"),)), b"/n/digits?x=1"),
    ],
)
def test_rewrites(rewrite, expected):
    assert Edits(template=TEMPLATE, rewrite=rewrite).outgoing(request()).target == expected


@pytest.mark.parametrize("host", ["a.b", "a.b:80", "[::1]", "[::1]:80", "model_server"])
def test_hosts_that_are_sent(host):
    assert Edits(host=words(host)).outgoing(request()).headers[b"host"] == host.encode()


def test_the_backends_own_host():
    assert b"host" not in Edits(host=words("")).outgoing(request()).headers


@pytest.mark.parametrize(
    ("path", "host"),
    [(b"digits", b"digits.internal:81"), (b"a@b", b"gw"), (b"a:1@b", b"gw"), (b"a,b", b"gw")],
)
def test_a_capture_that_is_no_host_name_leaves_the_host(path, host):
    edits = Edits(template=TEMPLATE, host=words("{model}.internal:81"))
    assert edits.outgoing(request(b"/v1/models/" + path + b":predict")).headers[b"host"] == host


def test_remove_then_set_then_add():
    edits = HeaderEdits(
        frozenset((b"x-a", b"x-b")), ((b"x-b", words("2")), (b"x-c", words("3"))), ((b"x-a", words("4")), (b"x-d", words("5")))
    )  # fmt: skip
    sent = Edits(request=edits).outgoing(request(x_a="1", x_c="1", x_d="1"))
    assert sent.headers == {b"host": b"gw", b"x-a": b"4", b"x-b": b"2", b"x-c": b"3", b"x-d": b"1, 5"}


def test_a_client_cannot_have_a_set_field_dropped():
    edits = HeaderEdits(set=((b"x-tenant", words("{client}")),))
    sent = Edits(request=edits).outgoing(
        request(connection="close, X-Tenant, x-other", x_other="1", x_tenant="mallory")
    )
    assert sent.headers == {b"host": b"gw", b"x-tenant": b"alice"}


def test_the_answer():
    edits = HeaderEdits(frozenset((b"server",)), ((b"x-a", words("{model}")),), ((b"x-b", words("2")),))
    response = Response(200, [(b"server", b"s"), (b"x-a", b"1"), (b"x-a", b"1"), (b"x-b", b"1"), (b"etag", b"e")])
    Edits(template=TEMPLATE, response=edits).answered(request(), response)
    assert response.headers == [(b"x-b", b"1"), (b"etag", b"e"), (b"x-a", b"digits"), (b"x-b", b"2")]


def test_what_is_never_sent_on_cannot_be_edited():
    dropped = {name.replace(b"_", b"-") for name in dropped_fields(b"x-api-key")}
    assert dropped - {b"x-api-key"} <= {name.encode() for name in OWN_REQUEST}
