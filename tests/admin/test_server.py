"""The admin listener and callers that send it anything."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from gateway.admin.server import AdminServer
from gateway.testing import RawClient

TOKEN = "token-of-the-operator"


class Stub:
    def __init__(self):
        self.forced = []

    def not_ready(self):
        return []

    def metrics(self):
        return "a 1\n"

    async def breakers(self):
        return []

    async def force_breaker(self, *asked):
        self.forced.append(asked)
        return "", []


@asynccontextmanager
async def admin(token):
    stub = Stub()
    server = AdminServer(stub, token)
    await server.start(SimpleNamespace(host="127.0.0.1", port=0, unix_path=None))
    try:
        yield stub, server.port
    finally:
        await server.stop()


def post(body, *fields):
    head = [b"POST /breakers HTTP/1.1", b"Host: a", b"Content-Length: %d" % len(body), *fields]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


async def ask(port, data):
    async with await RawClient.connect(port) as client:
        client.send(data)
        return await client.reply()


@pytest.mark.parametrize("shown", [b"", b"Bearer", b"Bearer \xff\xfe", b"Bearer " + TOKEN.encode() + b"x"])
async def test_who_does_not_show_the_token_hears_nothing(shown, caplog):
    async with admin(TOKEN) as (_, port):
        for path in (b"/metrics", b"/status", b"/breakers", b"/nothing"):
            reply = await ask(port, b"GET %b HTTP/1.1\r\nHost: a\r\nAuthorization: %b\r\n\r\n" % (path, shown))
            assert reply.status == 401
        assert (await ask(port, b"GET /livez HTTP/1.1\r\nHost: a\r\nAuthorization: %b\r\n\r\n" % shown)).status == 200
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        post(b"zz", b"Content-Encoding: gzip"),
        post(b""),
        post(b"\xff"),
        post(b"[" * 60_000),
        post(b'{"pool": "p", "backend": "b", "state": "open", "for": 1e999}'),
        post(b'{"pool": "p", "backend": "b", "state": "open", "for": true}'),
        post(b'{"pool": "\\ud800", "backend": "b", "state": "open"}'),
    ],
)
async def test_what_cannot_be_understood_is_refused_and_logged_by_nobody(data, caplog):
    async with admin(None) as (stub, port):
        assert (await ask(port, data)).status == 400
        assert not stub.forced
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


async def test_a_fault_of_ours_is_logged(caplog):
    async with admin(None) as (stub, port):
        stub.metrics = lambda: 1 // 0
        assert (await ask(port, b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")).status == 500
    assert "ZeroDivisionError" in caplog.text
