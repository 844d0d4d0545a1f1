"""What a backend is sent, and what it never is."""

from __future__ import annotations

from gateway.http.serialise import serialise
from gateway.request import Request
from gateway.upstreams.forward import dropped_fields

DROPPED = dropped_fields(b"x-api-key")


def sent(method=b"POST", body=b"hello", dropped=DROPPED, host=b"gw.example", **headers):
    fields = {name.replace("_", "-").encode(): value for name, value in headers.items()}
    if host is not None:
        fields = {b"host": host, **fields}
    request = Request(method, b"/a?b", b"/a", fields, body, peer=b"10.0.0.9")
    request.id, request.via = b"id-1", b"x-forwarded-for: 10.0.0.9\r\n"
    head, _, rest = serialise(request, b"/a?b", b"127.0.0.1:1", b"x-request-timeout: 250ms\r\n", dropped).partition(
        b"\r\n\r\n"
    )
    line, *lines = head.split(b"\r\n")
    names = [name for name, _, _ in (field.partition(b": ") for field in lines)]
    assert len(names) == len(set(names))
    return line, dict(field.split(b": ", 1) for field in lines), rest


def test_the_whole_of_it():
    line, fields, body = sent(content_type=b"application/json", accept=b"*/*")
    assert line == b"POST /a?b HTTP/1.1"
    assert fields == {
        b"host": b"gw.example",
        b"x-forwarded-for": b"10.0.0.9",
        b"x-request-id": b"id-1",
        b"x-request-timeout": b"250ms",
        b"content-type": b"application/json",
        b"accept": b"*/*",
        b"content-length": b"5",
    }
    assert body == b"hello"


def test_without_host_the_backends_own_name_is_said():
    assert sent(host=None)[1][b"host"] == b"127.0.0.1:1"


def test_framing_is_said_anew():
    fields = sent(transfer_encoding=b"chunked", content_length=b"999", te=b"trailers", trailer=b"x")[1]
    assert fields[b"content-length"] == b"5"
    assert not {b"transfer-encoding", b"te", b"trailer"} & fields.keys()
    assert b"content-length" not in sent(b"GET", b"")[1]
    assert sent(b"POST", b"")[1][b"content-length"] == b"0"
    assert sent(b"GET", b"x")[1][b"content-length"] == b"1"


def test_hop_by_hop_fields_and_those_that_connection_names_stay_here():
    fields = sent(
        connection=b"X-Secret, close ,Upgrade", x_secret=b"1", keep_alive=b"5", upgrade=b"h2c", expect=b"100-continue",
        proxy_authorization=b"x", proxy_connection=b"keep-alive",
    )[1]  # fmt: skip
    assert set(fields) == {b"host", b"x-forwarded-for", b"x-request-id", b"x-request-timeout", b"content-length"}


def test_the_callers_key_is_never_sent_on():
    assert b"x-api-key" not in sent(x_api_key=b"secret")[1]
    assert b"x-token" not in sent(x_token=b"secret", dropped=dropped_fields(b"x-token"))[1]


def test_forged_fields_are_replaced_or_dropped():
    fields = sent(
        x_forwarded_for=b"1.2.3.4", x_forwarded_host=b"evil", x_forwarded_proto=b"https", forwarded=b"for=1.2.3.4",
        x_forwarded_port=b"1", x_real_ip=b"1.2.3.4", x_request_id=b"forged", x_request_timeout=b"9s", grpc_timeout=b"9S",
    )[1]  # fmt: skip
    assert fields[b"x-forwarded-for"] == b"10.0.0.9"
    assert fields[b"x-request-id"] == b"id-1"
    assert fields[b"x-request-timeout"] == b"250ms"
    assert not {
        b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-proto", b"forwarded", b"x-real-ip", b"grpc-timeout",
    } & fields.keys()  # fmt: skip


def test_connection_cannot_take_away_what_we_say():
    fields = sent(connection=b"host, x-request-id, content-length")[1]
    assert {b"host", b"x-request-id", b"content-length"} <= fields.keys()
