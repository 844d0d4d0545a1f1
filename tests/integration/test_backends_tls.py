"""The installed gateway in front of backends over TLS and on unix sockets: nginx, OpenSSL, aiohttp, go_infer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from loadtests.peers.processes import free_ports
from tests.integration.gateways import Backend, Gateway
from tests.integration.test_link import serving
from tests.integration.test_listeners import NGINX, OPENSSL, Authority, Running, until
from tests.integration.test_streaming import Origin

pytestmark = [
    pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed"),
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed"),
]
FILES = Path(__file__).parents[1] / "config" / "certificates"
ROUTE = '  - {{name: {name}, match: {{path: "/{name}/*"}}, pool: {name}, timeout: 2s, upgrade: [websocket]}}\n'


class Behind(Gateway):
    """A gateway with a pool and a route `/NAME/*` for each of `pools`."""

    def __init__(self, folder: Path, pools: Mapping[str, str], workers: int = 1) -> None:
        super().__init__(folder, unused := Backend(), workers=workers)
        unused.close()
        self._head = self.text.partition("pools:")[0]
        self.say(pools)

    def say(self, pools: Mapping[str, str]) -> None:
        lines = [f"  {name}: {{{pool}, stream_above: 64KiB}}\n" for name, pool in pools.items()]
        routes = [ROUTE.format(name=name) for name in pools]
        self.path.write_text(f"{self._head}pools:\n{''.join(lines)}routes:\n{''.join(routes)}")

    def reload(self, pools: Mapping[str, str]) -> None:
        self.say(pools)
        status, said = self.admin("/reload", b"")
        assert status == 200, said

    def get(self, pool: str) -> tuple[int, str, str]:
        """Status, body, and the error in Proxy-Status."""
        status, body, headers = self.ask_all(f"/{pool}/", None, None)
        return status, body.decode().strip(), headers.get("proxy-status", "").rpartition("error=")[2]

    def backend_of(self, pool: str) -> dict[str, object]:
        [found] = [each for each in self.status()["workers"][0]["backends"] if each["pool"] == pool]
        return dict(found)


@contextmanager
def gateway(folder: Path, pools: Mapping[str, str], workers: int = 1) -> Iterator[Behind]:
    one = Behind(folder, pools, workers)
    try:
        one.start()
        yield one
    finally:
        one.child.stop(10)
    assert "Traceback" not in one.log()


def pool(
    port: int, tls: str | None = "ca: ca.pem", host: str = "127.0.0.1", more: str = "", connect: str = "10s"
) -> str:
    section = "" if tls is None else f", tls: {{{tls}}}"
    return f'backends: [{{url: "https://{host}:{port}"}}], connections: {{connect_timeout: {connect}}}{section}{more}'


NGINX_CONF = """\
{user}daemon off; pid nginx.pid; error_log stderr warn; worker_processes 1;
events {{}}
http {{
    access_log off;
    client_body_temp_path t; proxy_temp_path t; fastcgi_temp_path t; uwsgi_temp_path t; scgi_temp_path t;
    {servers}
}}
"""
SAYS = 'location / { return 200 "$ssl_protocol|$ssl_server_name|$ssl_client_s_dn|$connection|$ssl_client_verify"; }'


def server(address: str, certificate: str = "server", more: str = "", protocols: str = "TLSv1.2 TLSv1.3") -> str:
    files = f"ssl_certificate {certificate}.pem; ssl_certificate_key {certificate}-key.pem;"
    return f"server {{ listen {address} ssl; {files} ssl_protocols {protocols}; {more} {SAYS} }}"


@contextmanager
def nginx(folder: Path, port: int, *servers: str) -> Iterator[None]:
    user = "user root; " if os.geteuid() == 0 else ""  # the test's folder is private
    path = folder / "nginx.conf"
    path.write_text(NGINX_CONF.format(user=user, servers="\n    ".join(servers)))
    command = [str(NGINX), "-e", "stderr", "-p", str(folder), "-c", str(path)]
    with Running(command, port, folder / "nginx.log"):
        yield


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_who_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loop: str) -> None:
    monkeypatch.setenv("GATEWAY_LOOP", loop)
    other = tmp_path / "other"
    other.mkdir()
    Authority(other)
    authority = Authority(tmp_path)
    authority.issue("server")
    authority.issue("client", "the gateway")
    shutil.copy(FILES / "ended.pem", tmp_path / "ended.pem")
    shutil.copy(FILES / "key.pem", tmp_path / "ended-key.pem")
    good, mutual, ended, old, gone = free_ports(5)
    plain, strict = Backend(), Backend()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.ca))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server-key.pem")
    strict.server.socket = context.wrap_socket(strict.server.socket, server_side=True, do_handshake_on_connect=False)
    ours = "ca: ca.pem, certificate: client.pem, key: client-key.pem"
    pools = {
        "right": pool(good),
        "named": pool(good, "ca: ca.pem, server_name: localhost"),
        "newest": pool(good, 'ca: ca.pem, min_version: "1.3"'),
        "system": pool(good, None),
        "another": pool(good, "ca: other/ca.pem"),
        "misnamed": pool(good, "ca: ca.pem, server_name: models.internal"),
        "unverified": pool(ended, "verify: false"),
        "expired": pool(ended, "ca: ended.pem, server_name: localhost"),
        "old": pool(old),
        "too-old": pool(old, 'ca: ca.pem, min_version: "1.3"'),
        "mutual": pool(mutual, ours),
        "nobody": pool(mutual),
        "strict": pool(strict.port, ours),
        "stranger": pool(strict.port),
        "plain": pool(plain.port),
        "gone": pool(gone),
    }
    strict.server.handle_error = lambda *_: None  # type: ignore[method-assign]
    servers = (
        server(f"127.0.0.1:{good}"),
        server(f"127.0.0.1:{mutual}", more="ssl_client_certificate ca.pem; ssl_verify_client on;"),
        server(f"127.0.0.1:{ended}", "ended"),
        server(f"127.0.0.1:{old}", protocols="TLSv1.2"),
    )
    try:
        with nginx(tmp_path, good, *servers), gateway(tmp_path, pools) as one:
            answered = {name: one.get(name) for name in pools}
            said = {name: body.split("|") for name, (status, body, _) in answered.items() if status == 200}
            assert set(said) == {"right", "named", "newest", "unverified", "old", "mutual", "strict"}
            assert said["right"][:2] == ["TLSv1.3", ""], "an address is no server name (RFC 6066 section 3)"
            assert said["named"][1] == "localhost"
            assert said["old"][0] == "TLSv1.2"
            assert said["mutual"][2::2] == ["CN=the gateway", "SUCCESS"]
            assert answered["nobody"][0] == 400, "nginx says it in HTTP"
            failed = {name: answer[::2] for name, answer in answered.items() if answer[0] > 400}
            certificate = (502, "tls_certificate_error")
            # The server's alert, or the reset that follows it, if that comes first.
            assert failed.pop("stranger") in {(502, "tls_alert_received"), (502, "connection_terminated")}
            assert failed == {
                "system": certificate,
                "another": certificate,
                "misnamed": certificate,
                "expired": certificate,
                "too-old": (502, "tls_protocol_error"),
                "plain": (502, "tls_protocol_error"),
                "gone": (503, "connection_refused"),
            }
            assert not plain.seen
            log = one.log()
            for why in ("unable to get local issuer certificate", "Hostname mismatch", "certificate has expired"):
                assert f"the certificate is not accepted: {why}" in log
    finally:
        plain.close()
        strict.close()


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_handshake_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loop: str) -> None:
    monkeypatch.setenv("GATEWAY_LOOP", loop)
    Authority(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as mute:  # the kernel accepts, nobody answers
        port = mute.getsockname()[1]
        with gateway(
            tmp_path, {"mute": pool(port, more=", breaker: {failures: 2, open_for: 1h}", connect="500ms")}
        ) as one:
            assert one.ask("/mute/", None, {"X-Request-Timeout": "100ms"})[0] == 504, "its own deadline was nearer"
            begun = time.monotonic()
            assert one.get("mute")[::2] == (502, "tls_protocol_error")
            assert time.monotonic() - begun > 0.4
            assert "no TLS handshake within 500 ms" in one.log()
            one.get("mute")
            assert one.backend_of("mute")["breaker"] == "open"


def test_a_backend_renews_its_certificate(tmp_path: Path) -> None:
    (other := tmp_path / "other").mkdir()
    authority, stranger = Authority(tmp_path), Authority(other)
    authority.issue("server")
    [port] = free_ports(1)
    with gateway(tmp_path, {"p": pool(port)}) as one:
        with nginx(tmp_path, port, server(f"127.0.0.1:{port}")):
            assert one.get("p")[0] == 200
        authority.issue("server")
        with nginx(tmp_path, port, server(f"127.0.0.1:{port}")):
            assert one.get("p")[0] == 200, "the kept connection was stale"
        stranger.issue("server")
        with nginx(other, port, server(f"127.0.0.1:{port}")):
            assert one.get("p")[::2] == (502, "tls_certificate_error")
            one.get("p")
            assert one.log().count("is not accepted") == 1, "a change of state is logged once"
            one.reload({"p": pool(port, "ca: other/ca.pem")})
            assert one.get("p")[0] == 200


def test_a_reload_changes_how_tls_is_spoken(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.issue("server")
    client = authority.issue("client", "first")
    port, dead = free_ports(2)
    asks = server(f"127.0.0.1:{port}", more="ssl_client_certificate ca.pem; ssl_verify_client optional;")
    breaker = ", breaker: {failures: 2, open_for: 1h}"

    def pools(tls: str) -> dict[str, str]:
        return {"p": pool(port, tls), "dead": pool(dead, tls, more=breaker)}

    with nginx(tmp_path, port, asks), gateway(tmp_path, pools("ca: ca.pem")) as one:

        def peer() -> tuple[str, str]:
            status, body, _ = one.get("p")
            assert status == 200
            return body.split("|")[3], body.split("|")[2]  # the connection's number, and who we are

        first = peer()
        assert [peer() for _ in range(3)] == [first] * 3
        while one.backend_of("dead")["breaker"] != "open":
            one.get("dead")
        one.reload(pools("ca: ca.pem"))
        assert peer() == first, "nothing changed"
        own = f"ca: ca.pem, certificate: {client[0].name}, key: {client[1].name}"
        one.reload(pools(own))
        second = peer()
        assert second == (second[0], "CN=first")
        assert second[0] != first[0]
        authority.issue("client", "second")
        one.reload(pools(own))
        third = peer()
        assert third[1] == "CN=second", "files are compared by what they hold"
        assert [peer() for _ in range(3)] == [third] * 3
        assert one.backend_of("dead")["breaker"] == "open"
        key = (tmp_path / "client-key.pem").read_bytes()
        (tmp_path / "client-key.pem").write_text("nonsense")
        assert one.admin("/reload", b"")[0] == 422
        assert peer() == third
        (tmp_path / "client-key.pem").write_bytes(key)
        one.path.write_text(one.path.read_text().replace("https:", "http:"))
        assert b"is spoken to without TLS" in one.admin("/reload", b"")[1]


@contextlib.asynccontextmanager
async def origin(folder: Path) -> AsyncIterator[int]:
    """An aiohttp server over TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "server.pem", folder / "server-key.pem")
    one = Origin()
    app = web.Application(client_max_size=1 << 40)
    app.router.add_post("/p/digest", one.digest)
    app.router.add_post("/p/mirror", one.mirror)
    app.router.add_get("/p/bytes/{count}", one.bytes)
    app.router.add_get("/p/events", one.events)
    app.router.add_get("/p/ws", one.ws)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_streams_and_tunnels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loop: str) -> None:
    monkeypatch.setenv("GATEWAY_LOOP", loop)
    Authority(tmp_path).issue("server")
    async with origin(tmp_path) as port, aiohttp.ClientSession() as session:
        one = Behind(tmp_path, {"p": pool(port)})
        base = f"http://127.0.0.1:{one.port}/p"
        try:
            await asyncio.to_thread(one.start)
            for query in ("", "?chunked"):
                async with session.get(f"{base}/bytes/20000000{query}") as answer:
                    assert len(await answer.read()) == 20_000_000
            body = os.urandom(900_000)
            async with session.post(f"{base}/mirror", data=body) as answer:
                assert await answer.read() == body
            async with session.get(f"{base}/events") as answer:
                assert (await answer.content.readline()) == b"data: 0\n"  # before the others are said
                assert (await answer.read()).endswith(b"data: 4\n\n")
            async with session.ws_connect(f"{base}/ws") as tunnel:
                await tunnel.send_str("before")
                assert await tunnel.receive_str(timeout=30) == "BEFORE"
                await asyncio.to_thread(one.reload, {"p": pool(port, 'ca: ca.pem, min_version: "1.3"')})
                blob = os.urandom(300_000)
                await tunnel.send_bytes(blob)  # what is under way finishes on the connection it has
                assert await tunnel.receive_bytes(timeout=30) == blob
            async with session.get(f"{base}/bytes/10") as answer:
                assert await answer.read() == b"x" * 10
        finally:
            await asyncio.to_thread(one.child.stop, 10)
        assert "Traceback" not in one.log()


def test_a_unix_socket_that_comes_and_goes(tmp_path: Path) -> None:
    path, [port] = tmp_path / "backend.sock", free_ports(1)
    pools = {"p": f'backends: [{{url: "unix:{path}"}}], breaker: {{failures: 1000}}'}
    listens = (
        f"server {{ listen 127.0.0.1:{port}; listen unix:{path}; "
        'location / { return 200 "$http_host|$http_x_forwarded_host"; } }'
    )
    with gateway(tmp_path, pools) as one:
        assert one.get("p")[0] == 503
        left = socket.socket(socket.AF_UNIX)
        left.bind(str(path))
        left.close()
        assert one.get("p")[::2] == (503, "connection_refused")
        path.unlink()
        for _ in range(2):
            with nginx(tmp_path, port, listens):
                status, said, _ = one.get("p")
                assert (status, said.split("|")[0]) == (200, f"127.0.0.1:{one.port}")
                assert one.get("p")[0] == 200
            path.unlink(missing_ok=True)
        assert one.get("p")[0] == 503


def test_health_checks_connect_as_requests_do(tmp_path: Path) -> None:
    Authority(tmp_path).issue("server")
    path, [port] = tmp_path / "backend.sock", free_ports(1)
    check = ", health: {path: /, interval: 100ms, timeout: 1s, unhealthy_after: 1, healthy_after: 1}"
    pools = {
        "good": pool(port, more=check),
        "misnamed": pool(port, "ca: ca.pem, server_name: models.internal", more=check),
        "beside": f'backends: [{{url: "unix:{path}"}}]{check}',
    }
    both = (server(f"127.0.0.1:{port}"), f"server {{ listen unix:{path}; {SAYS} }}")
    with nginx(tmp_path, port, *both), gateway(tmp_path, pools) as one:

        def health() -> dict[str, object]:
            return {name: one.backend_of(name)["healthy"] for name in pools}

        assert until(lambda: health() == {"good": True, "misnamed": False, "beside": True}), health()
        assert one.get("beside")[0] == one.get("good")[0] == 200
        path.unlink()
        assert until(lambda: health() == {"good": True, "misnamed": False, "beside": False}), health()
        fixed = pools | {"misnamed": pool(port, "ca: ca.pem, server_name: localhost", more=check)}
        one.reload(fixed)
        assert until(lambda: health() == {"good": True, "misnamed": True, "beside": False}), health()


class Terminator:
    """Passes on what comes over TLS, or on a unix socket, byte for byte."""

    def __init__(self, target: int) -> None:
        self.target = target

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.target)
        with contextlib.suppress(ConnectionError):
            await asyncio.wait(
                [asyncio.ensure_future(self._pump(reader, back)), asyncio.ensure_future(self._pump(there, writer))],
                return_when=asyncio.FIRST_COMPLETED,
            )
        back.transport.abort()
        writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()


async def test_the_link_over_tls_and_on_a_unix_socket(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.issue("server"))
    path = tmp_path / "model.sock"
    with serving() as model:
        between = Terminator(model.port)
        secure = await asyncio.start_server(between.pass_on, "127.0.0.1", 0, ssl=context)
        beside = await asyncio.start_unix_server(between.pass_on, str(path))
        port = secure.sockets[0].getsockname()[1]
        pools = {
            "v1": f"protocol: link, {pool(port)}",
            "wrong": f"protocol: link, {pool(port, 'ca: ca.pem, server_name: models.internal')}",
        }
        one = Behind(tmp_path, pools)
        try:
            await asyncio.to_thread(one.start)
            for speaks in (pools, pools | {"v1": f'protocol: link, backends: [{{url: "unix:{path}"}}]'}):
                await asyncio.to_thread(one.reload, speaks)
                before = await asyncio.to_thread(model.metric, "go_infer_link_streams_total")
                for _ in range(20):
                    assert (await asyncio.to_thread(one.ask, "/v1/models/digits"))[0] == 200
                assert (await asyncio.to_thread(one.backend_of, "v1"))["protocol"] == "sluice-link/1"
                assert await asyncio.to_thread(model.metric, "go_infer_link_streams_total") - before == 20
            assert (await asyncio.to_thread(one.get, "wrong"))[::2] == (502, "tls_certificate_error")
        finally:
            await asyncio.to_thread(one.child.stop, 10)
            secure.close()
            beside.close()
        assert "Traceback" not in one.log()
