"""Connections to backends over TLS and unix sockets, through the pool that uses them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from pathlib import Path

import pytest

from gateway.certificates import ClientTls, Pem, client_context, server_context
from gateway.errors import (
    CertificateRefused,
    ConnectFailed,
    ConnectionBroken,
    StaleConnection,
    TlsAlert,
    TlsFailed,
    UpstreamTimeout,
)
from gateway.http.client import ConnectionPool
from gateway.http.dial import Address, Tls
from gateway.http.upstream import ClientLimits
from gateway.link.pool import LinkPool
from gateway.request import Request
from gateway.testing import OK, Close, Never, Say, ScriptedBackend, answer

pytestmark = pytest.mark.undisturbed

FILES = Path(__file__).parents[1] / "config" / "certificates"
CERTIFICATE, KEY, ENDED = ((FILES / f"{name}.pem").read_bytes() for name in ("long", "key", "ended"))
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def serving(certificate=CERTIFICATE, version="1.2", **changes):
    return server_context(Pem(certificate, KEY, **changes), version)


def tls(name="localhost", ca=CERTIFICATE, **settings):
    own = ClientTls(ca, **settings)
    return Tls(own, name, client_context(own))


@contextlib.asynccontextmanager
async def backend(*script, server=None):
    async with ScriptedBackend(list(script) or [OK], tls=server or serving()) as one:
        yield one


class Raw:
    """A server that does `accept(reader, writer)` with each connection; `gone` is set when one is over."""

    def __init__(self, accept):
        self.accept, self.gone = accept, asyncio.Event()

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.close()
        async with asyncio.timeout(30):
            await self.gone.wait()

    async def _handle(self, reader, writer):
        with contextlib.suppress(ConnectionError):
            await self.accept(reader, writer)
        writer.transport.abort()
        self.gone.set()


async def silence(reader, writer):
    await reader.read()


def pool(port, wanted, kind=ConnectionPool, connect_timeout=30.0, **how):
    return kind(Address("127.0.0.1", port), ClientLimits(connect_timeout=connect_timeout), wanted, **how)


async def exchange(one, seconds=30.0):
    return await one.exchange(REQUEST, head_only=False, deadline=asyncio.get_running_loop().time() + seconds)


async def fails(port, wanted, kind, text, **how):
    one = pool(port, wanted, **how)
    with pytest.raises(kind) as caught:
        await exchange(one)
    assert type(caught.value) is kind
    assert text in str(caught.value)
    assert (len(one.active), one.idle, one._connecting) == (0, 0, 0)


# -- TLS ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "wanted"),
    [
        ({}, {}),
        ({"version": "1.3"}, {"min_version": "1.3"}),
        ({"certificate": ENDED}, {"name": "any", "ca": None, "verify": False}),
        ({"client_ca": CERTIFICATE}, {"certificate": CERTIFICATE, "key": KEY}),
    ],
    ids=["usual", "1.3", "unverified", "own certificate"],
)
async def test_answers_over_tls(server, wanted):
    async with backend(server=serving(**server)) as one:
        own = pool(one.port, tls(**wanted))
        for _ in range(3):
            assert (await exchange(own)).body == b"ok"
        assert (one.connections, own.idle) == (1, 1)
        secure = own._idle[0].transport.get_extra_info("ssl_object")
        assert secure.selected_alpn_protocol() == "http/1.1"
        own.close()


@pytest.mark.parametrize(
    ("server", "wanted", "text"),
    [
        ({}, {"ca": None}, "self-signed certificate"),
        ({}, {"name": "another.example"}, "Hostname mismatch"),
        ({}, {"name": "127.0.0.1"}, "IP address mismatch"),
        ({"certificate": ENDED}, {"ca": ENDED}, "expired"),
    ],
    ids=["unknown authority", "other name", "address", "expired"],
)
async def test_a_certificate_that_proves_nothing(server, wanted, text):
    async with backend(server=serving(**server)) as one:
        await fails(one.port, tls(**wanted), CertificateRefused, text)
        assert one.requests == []


class SaysWhy:
    """A server on OpenSSL's own sockets: unlike asyncio's, it sends the alert for what it refuses."""

    def __init__(self, context):
        self.context, self.listener = context, socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]

    async def __aenter__(self):
        self.serving = asyncio.ensure_future(asyncio.to_thread(self._serve))
        return self

    async def __aexit__(self, *_):
        await self.serving

    def _serve(self):
        self.listener.settimeout(30)
        with self.listener, self.listener.accept()[0] as sock, sock.dup() as below, contextlib.suppress(OSError):
            sock.settimeout(30)
            below.settimeout(30)
            with contextlib.suppress(ssl.SSLError), self.context.wrap_socket(sock, server_side=True) as secure:
                secure.recv(100)
            below.shutdown(socket.SHUT_WR)
            while below.recv(4096):  # closing on a request unread would reset the connection, and the alert with it
                pass


def old_server():
    context = serving()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


async def test_a_server_that_is_too_old():
    async with SaysWhy(old_server()) as one:
        await fails(one.port, tls(min_version="1.3"), TlsFailed, "alert protocol version")


async def test_no_certificate_of_ours_where_one_is_required():
    context = serving(client_ca=CERTIFICATE)
    async with SaysWhy(context) as one:  # TLS 1.3 says so after our end of the handshake
        with pytest.raises(TlsAlert, match="certificate required"):
            await exchange(pool(one.port, tls()))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with SaysWhy(context) as one:
        await fails(one.port, tls(), TlsFailed, "handshake fail")


async def test_a_server_without_tls():
    async def talk(reader, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()

    async with Raw(talk) as server:
        await fails(server.port, tls(), TlsFailed, "handshake failed")


async def test_a_handshake_that_hangs_is_over_in_time_and_leaves_nothing_open():
    async with Raw(silence) as server:
        await fails(server.port, tls(), TlsFailed, "no TLS handshake within 50 ms", connect_timeout=0.05)
        async with asyncio.timeout(30):
            await server.gone.wait()


async def test_a_request_without_time_for_the_handshake():
    async with Raw(silence) as server:
        one = pool(server.port, tls())
        with pytest.raises(UpstreamTimeout):
            await exchange(one, 0.03)
        async with asyncio.timeout(30):
            await server.gone.wait()


async def test_a_client_that_leaves_during_the_handshake():
    async with Raw(silence) as server:
        asking = asyncio.ensure_future(exchange(pool(server.port, tls())))
        await asyncio.sleep(0.03)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        async with asyncio.timeout(30):
            await server.gone.wait()


async def test_a_backend_that_hangs_up_on_us():
    async def leave(reader, writer):
        writer.close()

    async with Raw(leave) as server:
        for _ in range(20):
            with pytest.raises(TlsFailed):
                await exchange(pool(server.port, tls()))


async def test_tls_that_fails_is_logged_once_and_so_is_its_return(caplog):
    async with backend() as one:
        own = pool(one.port, tls("another.example"))
        for _ in range(3):
            with pytest.raises(CertificateRefused):
                await exchange(own)
        own.tls = tls()
        for _ in range(2):
            await exchange(own)
        said = [record.getMessage() for record in caplog.records if record.name == "gateway.http.client"]
        assert len(said) == 2
        assert "Hostname mismatch" in said[0]
        assert said[1].endswith("TLS works again")
        own.close()


async def test_a_kept_connection_that_the_backend_closes():
    async with backend([OK, Close()]) as one:
        own = pool(one.port, tls())
        await exchange(own)
        with pytest.raises(StaleConnection):
            await exchange(own)


UNTIL_THE_END = Say(b"HTTP/1.1 200 OK\r\n\r\nabc")


async def test_a_body_that_ends_with_the_connection_ends_with_close_notify():
    async with backend((UNTIL_THE_END, Close())) as one:
        assert (await exchange(pool(one.port, tls()))).body == b"abc"


class CutsOff(ScriptedBackend):
    """Ends its TCP connection after the answer, without a word of TLS."""

    async def _follow(self, script, reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(UNTIL_THE_END.data)
        await asyncio.sleep(0.002)
        with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as sock:
            sock.shutdown(socket.SHUT_WR)
        await reader.read()


async def test_a_body_that_somebody_may_have_cut_off_is_not_taken_for_whole():
    async with CutsOff(tls=serving()) as one:
        with pytest.raises(ConnectionBroken):
            await exchange(pool(one.port, tls()))


async def test_a_long_answer_streams():
    body = os.urandom(3_000_000)
    async with backend(answer(body)) as one:
        own = pool(one.port, tls())
        response = await exchange(own)
        got = b""
        while chunk := await response.stream.read():
            got += chunk
        assert got == body
        own.close()


async def test_the_link_says_what_is_wrong_with_tls():
    async with backend() as one:
        own = pool(one.port, tls("another.example"), LinkPool, required=True)
        loop = asyncio.get_running_loop()
        request = Request(b"GET", b"/", b"/", {b"host": b"a"})
        with pytest.raises(CertificateRefused):
            await own.ask(request, b"/", b"a", 10**9, frozenset(), deadline=loop.time() + 1)
        own.close()


# -- unix sockets -------------------------------------------------------------------------------------------------


async def test_a_unix_socket(tmp_path):
    path = str(tmp_path / "backend.sock")
    own = ConnectionPool(Address(unix_path=path), ClientLimits())
    with pytest.raises(ConnectFailed, match=rf"unix:{path}: No such file"):
        await exchange(own)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        with pytest.raises(ConnectFailed, match="refused"):
            await exchange(own)
    Path(path).unlink()
    for _ in range(2):  # the second server finds a connection to the first one in the pool
        async with ScriptedBackend([OK], unix_path=path) as one:
            with contextlib.suppress(StaleConnection):
                await exchange(own)
            assert (await exchange(own)).body == b"ok"
            assert one.connections == 1
        Path(path).unlink(missing_ok=True)
    own.close()


async def test_a_unix_socket_that_answers_nothing(tmp_path):
    path = str(tmp_path / "backend.sock")
    async with ScriptedBackend([Never()], unix_path=path):
        with pytest.raises(UpstreamTimeout):
            await exchange(ConnectionPool(Address(unix_path=path), ClientLimits()), 0.05)


def test_addresses():
    assert str(Address("h", 1)) == "h:1"
    assert Address("::1", 1).authority == b"[::1]:1"
    assert str(Address(unix_path="/run/s")) == "unix:/run/s"
    assert Address(unix_path="/run/s").authority == b"localhost"
