"""What stands before HTTP on a real socket: PROXY headers, TLS, both, and the bounds on connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.certificates import Pem, server_context
from gateway.http.doors import Door
from gateway.http.forwarded import TrustedProxies
from gateway.http.origin import Forwarding
from gateway.http.server import Server, ServerLimits
from gateway.replies import bad_request
from gateway.request import Response

pytestmark = pytest.mark.undisturbed

FILES = Path(__file__).parents[1] / "config" / "certificates"
PEM = Pem((FILES / "long.pem").read_bytes(), (FILES / "key.pem").read_bytes())
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
V1 = b"PROXY TCP4 192.0.2.1 10.0.0.1 56324 443\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes([192, 0, 2, 7, 10, 0, 0, 1, 0, 1, 0, 2])
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"


class House:
    def __init__(self, forwarding, **limits):
        self.server = Server(
            self.handle,
            lambda error, _peer: bad_request(error),
            replace(ServerLimits(**limits), sweep=0.005),
            forwarding,
        )
        self.port = 0

    async def handle(self, request):
        return Response(200, [(b"via", request.via.replace(b"\r\n", b" ; "))], request.peer + b"|" + request.body)

    async def connect(self, tls=None):
        return await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=tls, server_hostname="localhost" if tls else None
        )

    async def quiet(self):
        async with asyncio.timeout(30):
            while self.server.connections or self.server.arriving or self.server.counts:
                await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def house(tls=None, proxy=False, trusted=(), **limits):
    one = House(Forwarding(TrustedProxies(trusted)), **limits)
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    one.port = sock.getsockname()[1]
    one.door = Door(one.server, tls, proxy=proxy)
    await one.server.listen(sock, one.door.accept)
    try:
        yield one
        await one.server.drain(idle=0, timeout=1)
        await one.quiet()
    finally:
        await one.server.drain(idle=0, timeout=0)


def client_context():
    context = ssl.create_default_context(cafile=FILES / "long.pem")
    context.check_hostname = False
    return context


async def answer(reader):
    """Peer and body of one answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split()[0])
    return (await reader.readexactly(length)).decode(), head.decode()


async def closed(reader):
    async with asyncio.timeout(30):
        with contextlib.suppress(ConnectionError):
            return await reader.read() == b""
        return True


@pytest.mark.parametrize(("header", "client"), [(V1, "192.0.2.1"), (V2, "192.0.2.7"), (LOCAL, "127.0.0.1")])
async def test_a_proxy_header_says_who_it_is(header, client):
    async with house(proxy=True) as one:
        for cut in (0, 1, 10, len(header) - 1, len(header), len(header) + 5):
            reader, writer = await one.connect()
            data = header + GET + GET
            writer.write(data[:cut])
            await asyncio.sleep(0.002)
            writer.write(data[cut:])
            for _ in range(2):
                body, head = await answer(reader)
                assert body == f"{client}|"
                assert f"x-forwarded-for: {client} ; x-forwarded-proto: http ; " in head
            writer.close()


async def test_without_a_header_nothing_is_answered():
    async with house(proxy=True, header_timeout=0.03) as one:
        for data in (GET, b"\x16\x03\x01", V1[:-2] + b"x" * 200):
            reader, writer = await one.connect()
            writer.write(data)
            assert await closed(reader)
            writer.close()
        assert one.server.stats.proxy_errors == 3
        reader, writer = await one.connect()
        writer.write(V1[:9])
        assert await closed(reader), "the header has the time that a request's head has"
        writer.close()
        assert (one.server.stats.proxy_errors, one.server.stats.timeouts) == (4, 1)


async def test_a_listener_that_did_not_ask_takes_no_header():
    async with house() as one:
        reader, writer = await one.connect()
        writer.write(V1 + GET)
        assert b" 400 " in await reader.readline()
        writer.close()


async def test_only_trusted_proxies_may_send_a_header():
    async with house(proxy=True, trusted=("10.0.0.0/8",)) as one:
        reader, writer = await one.connect()
        with contextlib.suppress(ConnectionError):
            writer.write(V1 + GET)
        assert await closed(reader)
        writer.close()
        assert one.server.stats.proxy_errors == 1
    async with house(proxy=True, trusted=("127.0.0.1",)) as one:
        reader, writer = await one.connect()
        writer.write(V1 + b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n")
        assert (await answer(reader))[0] == "192.0.2.1|", "the client behind the proxy is not a proxy"
        writer.close()


async def test_tls():
    async with house(server_context(PEM)) as one:
        context = client_context()
        context.set_alpn_protocols(["h2", "http/1.1"])
        reader, writer = await one.connect(context)
        tls = writer.get_extra_info("ssl_object")
        assert (tls.version(), tls.selected_alpn_protocol()) == ("TLSv1.3", "http/1.1")
        big = b"x" * 300_000
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(big) + big + GET)
        body, head = await answer(reader)
        assert body.endswith("x" * 300_000)
        assert "x-forwarded-proto: https" in head
        assert (await answer(reader))[0] == "127.0.0.1|"
        writer.write(b"GET / HTTP/9\r\n\r\n")
        assert b" 400 " in await reader.readline() or True
        writer.close()


@pytest.mark.parametrize("together", [True, False])
async def test_tls_behind_a_proxy_header(together):
    """The first bytes of the handshake may come in the same segment as the header, or in another."""
    async with house(server_context(PEM), proxy=True) as one:
        for size in (1, 7, 100_000):
            sock = socket.create_connection(("127.0.0.1", one.port))
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
            hello = outgoing.read()
            if together:
                await loop.sock_sendall(sock, V2 + hello[:size])
                await asyncio.sleep(0.01)
                await loop.sock_sendall(sock, hello[size:])
            else:
                await loop.sock_sendall(sock, V2)
                await asyncio.sleep(0.01)
                await loop.sock_sendall(sock, hello)
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    incoming.write(await asyncio.wait_for(loop.sock_recv(sock, 65536), 2))
            tls.write(GET)  # with the client's last flight: decrypted before the handshake's task goes on
            await loop.sock_sendall(sock, outgoing.read())
            got = b""
            while b"192.0.2.7|" not in got:
                incoming.write(await asyncio.wait_for(loop.sock_recv(sock, 65536), 2))
                with contextlib.suppress(ssl.SSLWantReadError):
                    got += tls.read(65536)
            sock.close()


async def test_handshakes_that_fail_are_counted_and_do_not_stay():
    async with house(server_context(PEM), handshake_timeout=0.05, max_connections=3) as one:
        reader, writer = await one.connect()
        writer.write(GET)
        await closed(reader)
        writer.close()
        silent = await one.connect()
        begun = await one.connect()
        begun[1].write(b"\x16\x03\x01\x02\x00\x01")
        assert await closed(silent[0])
        assert await closed(begun[0])
        for _, writer in (silent, begun):
            writer.close()
        await one.quiet()
        assert one.server.stats.handshake_failures == 3
        gone = await one.connect()
        gone[1].close()
        await one.quiet()


async def test_silent_handshakes_count_as_connections():
    async with house(server_context(PEM), max_connections=2) as one:
        held = [await one.connect() for _ in range(2)]
        async with asyncio.timeout(30):
            while len(one.server.arriving) < 2:
                await asyncio.sleep(0.001)
        reader, writer = await one.connect()
        assert await closed(reader)
        assert one.server.stats.refused == 1
        for _, each in [*held, (reader, writer)]:
            each.close()


async def test_a_new_certificate_is_for_new_handshakes():
    async with house(server_context(PEM)) as one:
        reader, writer = await one.connect(client_context())
        one.door.tls = server_context(Pem((FILES / "ended.pem").read_bytes(), PEM.key))
        writer.write(GET)
        assert (await answer(reader))[0] == "127.0.0.1|"
        with pytest.raises(ssl.SSLCertVerificationError):
            await one.connect(client_context())
        writer.write(GET)
        assert (await answer(reader))[0] == "127.0.0.1|"
        writer.close()


@pytest.mark.parametrize("proxy", [False, True])
async def test_connections_per_address(proxy):
    async with house(proxy=proxy, max_connections_per_address=2) as one:
        start = V1 + GET if proxy else GET
        held = []
        for _ in range(2):
            reader, writer = await one.connect()
            writer.write(start)
            await answer(reader)
            held.append(writer)
        reader, writer = await one.connect()
        with contextlib.suppress(ConnectionError):
            writer.write(start)
        assert await closed(reader)
        assert (one.server.stats.refused, one.server.stats.refused_address) == (1, 1)
        if proxy:
            other, another = await one.connect()
            another.write(V2 + GET)
            assert (await answer(other))[0] == "192.0.2.7|"
            held.append(another)
        held.pop(0).close()
        async with asyncio.timeout(30):
            while one.server.counts.get(b"192.0.2.1" if proxy else b"127.0.0.1") != 1:
                await asyncio.sleep(0.001)
        reader, again = await one.connect()
        again.write(start)
        await answer(reader)
        for each in (*held, writer, again):
            each.close()
        await one.quiet()


async def test_trusted_proxies_are_not_counted():
    async with house(trusted=("127.0.0.1",), max_connections_per_address=1) as one:
        for _ in range(3):
            reader, writer = await one.connect()
            writer.write(GET.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 6.6.6.6, 192.0.2.1\r\n\r\n"))
            assert (await answer(reader))[0] == "192.0.2.1|"
        assert one.server.counts == {}


async def test_requests_per_connection():
    async with house(max_requests_per_connection=2) as one:
        reader, writer = await one.connect()
        writer.write(GET * 3)
        assert "connection: close" not in (await answer(reader))[1]
        assert "connection: close" in (await answer(reader))[1]
        assert await closed(reader)
        writer.close()
        assert one.server.stats.request_limits == 1


async def test_new_rules_reach_open_connections():
    async with house() as one:
        reader, writer = await one.connect()
        ask = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n"
        for trusted, client in (((), "127.0.0.1"), (("127.0.0.0/8",), "192.0.2.1"), ((), "127.0.0.1")):
            one.server.use(one.server.limits, Forwarding(TrustedProxies(trusted)))
            writer.write(ask)
            assert (await answer(reader))[0] == f"{client}|"
        writer.close()


async def test_a_drain_does_not_wait_for_idle_clients_to_end_tls():
    async with house(server_context(PEM), linger=0.05) as one:
        sock = socket.create_connection(("127.0.0.1", one.port))
        talk = asyncio.to_thread(client_context().wrap_socket, sock, server_hostname="localhost")
        with await talk as client:
            await asyncio.to_thread(client.sendall, GET)
            assert b" 200 " in await asyncio.to_thread(client.recv, 65536)
            began = asyncio.get_running_loop().time()
            assert await one.server.drain(idle=0, timeout=5) == 0
            assert asyncio.get_running_loop().time() - began < 1
