"""The installed gateway's listeners with real clients and real proxies: TLS, unix sockets, PROXY protocol, trust."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest

from demo.layout import GATEWAY
from loadtests.peers.processes import free_ports
from tests.integration.gateways import Backend, Gateway

PATHS = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
NGINX, HAPROXY, CURL, OPENSSL = (shutil.which(name, path=PATHS) for name in ("nginx", "haproxy", "curl", "openssl"))
needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed")
TRUSTING = "http: {trusted_proxies: [127.0.0.1]}\n"


def until(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


@contextmanager
def running(folder: Path, listen: str, extra: str = "", workers: int = 1) -> Iterator[Gateway]:
    """A gateway whose plain listener stays, beside the ones given."""
    backend = Backend()
    gateway = Gateway(folder, backend, extra, workers)
    plain = f"listen: 127.0.0.1:{gateway.port}"
    gateway.text = gateway.text.replace(plain, f"listen: [127.0.0.1:{gateway.port}{', ' * bool(listen)}{listen}]")
    gateway.path.write_text(gateway.text)
    try:
        gateway.start()
        yield gateway
    finally:
        gateway.child.stop(10)
        backend.close()


class Authority:
    """A certificate authority for one test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = folder / "ca.pem"
        self._run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                  "-subj", "/CN=test authority", "-keyout", "ca-key.pem", "-out", "ca.pem")  # fmt: skip

    def _run(self, *arguments: str) -> None:
        subprocess.run([str(OPENSSL), *arguments], cwd=self.folder, check=True, capture_output=True)

    def issue(self, name: str, subject: str = "localhost") -> tuple[Path, Path]:
        self._run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={subject}",
                  "-keyout", f"{name}-key.new", "-out", f"{name}.csr")  # fmt: skip
        (self.folder / "san").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        self._run("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial",
                  "-days", "1", "-extfile", "san", "-out", f"{name}.new")  # fmt: skip
        for part in ("", "-key"):
            (self.folder / f"{name}{part}.new").replace(self.folder / f"{name}{part}.pem")
        return self.folder / f"{name}.pem", self.folder / f"{name}-key.pem"

    def client(self, certificate: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.ca))
        if certificate is not None:
            context.load_cert_chain(*certificate)
        return context


def ask_https(port: int, context: ssl.SSLContext) -> tuple[int, bytes, str]:
    """Status, body and the serial number of the server's certificate, on a new connection."""
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=30)
    try:
        connection.request("POST", "/x", b"hello")
        serial = connection.sock.getpeercert()["serialNumber"]
        answer = connection.getresponse()
        return answer.status, answer.read(), serial
    finally:
        connection.close()


def tls(port: int, more: str = "") -> str:
    return f"{{address: 127.0.0.1:{port}, tls: {{certificate: server.pem, key: server-key.pem{more}}}}}"


@needs_openssl
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loop: str) -> None:
    monkeypatch.setenv("GATEWAY_LOOP", loop)
    authority = Authority(tmp_path)
    authority.issue("server")
    [port] = free_ports(1)
    with running(tmp_path, tls(port), workers=2) as gateway:
        context = authority.client()
        context.set_alpn_protocols(["h2", "http/1.1"])
        assert ask_https(port, context)[:2] == (200, b"hello")
        assert gateway.backend.seen[-1][1]["x-forwarded-proto"] == "https"
        assert gateway.ask("/plain")[0] == 200
        assert gateway.backend.seen[-1][1]["x-forwarded-proto"] == "http"
        with (
            socket.create_connection(("127.0.0.1", port)) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as one,
        ):
            assert (one.version(), one.selected_alpn_protocol()) == ("TLSv1.3", "http/1.1")
        old = authority.client()
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        assert ask_https(port, old)[0] == 200
        with socket.create_connection(("127.0.0.1", port)) as raw:
            raw.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b"HTTP" not in raw.recv(100)
        assert until(lambda: b"gateway_tls_handshake_failures_total 1\n" in gateway.admin("/metrics")[1])


@needs_openssl
def test_client_certificates(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path), tmp_path / "other"
    other.mkdir()
    authority.issue("server")
    good, bad = authority.issue("client", "somebody"), Authority(other).issue("client", "somebody")
    must, may = free_ports(2)
    listen = f"{tls(must, ', client_ca: ca.pem')}, {tls(may, ', client_ca: ca.pem, client_certificate: request')}"
    with running(tmp_path, listen):
        assert ask_https(must, authority.client(good))[0] == 200
        assert ask_https(may, authority.client(good))[0] == 200
        assert ask_https(may, authority.client())[0] == 200
        for port, certificate in ((must, None), (must, bad), (may, bad)):
            with pytest.raises((ssl.SSLError, OSError, http.client.HTTPException)):
                ask_https(port, authority.client(certificate))


@needs_openssl
def test_a_certificate_is_renewed_under_load(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.issue("server")
    [port] = free_ports(1)
    with running(tmp_path, tls(port), workers=2) as gateway:
        over, serials, failures, kept = threading.Event(), [], [], []

        def strangers() -> None:
            while not over.is_set():
                try:
                    serials.append(ask_https(port, authority.client())[2])
                except (OSError, http.client.HTTPException) as error:
                    failures.append(error)

        def regular() -> None:
            connection = http.client.HTTPSConnection("127.0.0.1", port, context=authority.client(), timeout=30)
            connection.connect()
            first = connection.sock
            try:
                while not over.is_set():
                    connection.request("POST", "/x", b"y")
                    kept.append(connection.getresponse().read())
                if connection.sock is not first:
                    failures.append(AssertionError("a connection was dropped"))
            except (OSError, http.client.HTTPException) as error:
                failures.append(error)
            connection.close()

        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            for one in (strangers, strangers, strangers, regular, regular, regular):
                pool.submit(one)
            assert until(lambda: len(serials) > 20)
            authority.issue("server")
            gateway.child.signal(signal.SIGHUP)
            assert until(lambda: gateway.status()["generation"] == 2), gateway.log()
            new = ask_https(port, authority.client())[2]
            begun = len(serials)
            assert until(lambda: len(serials) > begun + 20)
            assert set(serials[begun + 6 :]) == {new}
            assert serials[0] != new
            # A key that does not fit: the reload is refused with the place, and the renewed certificate stays.
            (tmp_path / "server-key.pem").write_bytes((tmp_path / "ca-key.pem").read_bytes())
            status, body = gateway.admin("/reload", b"")
            said = json.loads(body)["error"].splitlines()[0]
            assert status == 422
            assert said.startswith(f"{gateway.path}:2:"), said
            assert said.endswith("error: listen[1].tls.key: 'server-key.pem' does not belong to the certificate"), said
            begun = len(serials)
            assert until(lambda: len(serials) > begun + 20)
            assert set(serials[begun:]) == {new}
            over.set()
        assert failures == []
        print(f"{len(serials)} handshakes and {len(kept)} requests on 3 kept connections, 0 failed")


@needs_openssl
def test_check_finds_what_is_wrong_with_a_certificate(tmp_path: Path) -> None:
    Authority(tmp_path).issue("server")
    gateway = Gateway(tmp_path, backend := Backend(), f"listen_: {tls(1)}\n")
    backend.close()
    gateway.path.write_text(gateway.text.replace("listen: 127", "#").replace("listen_:", "listen:"))

    def check() -> str:
        return subprocess.run([str(GATEWAY), "check", "-c", str(gateway.path)], capture_output=True, text=True).stdout

    assert "(tls)" in check()
    assert "expires on" in check(), "it lasts one day"
    (tmp_path / "server-key.pem").unlink()
    assert "tls.key: there is no file" in check()


def test_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "front.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()  # as a killed gateway leaves it
    with running(tmp_path, f'{{address: "unix:{path}", mode: "0600"}}', workers=2) as gateway:
        mode = path.lstat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
        for _ in range(10):
            connection = http.client.HTTPConnection("localhost")
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.connect(str(path))
            connection.request("POST", "/x", b"over unix", {"X-Forwarded-For": "6.6.6.6"})
            assert connection.getresponse().read() == b"over unix"
            connection.close()
        assert gateway.backend.seen[-1][1]["x-forwarded-for"] == "unknown"
        if CURL is not None:
            command = [CURL, "-s", "--unix-socket", str(path), "-d", "hello", "http://localhost/y"]
            assert subprocess.run(command, capture_output=True, timeout=30).stdout == b"hello"
        twin = gateway.path.with_name("twin.yaml")
        [free] = free_ports(1)
        twin.write_text(gateway.text.replace(str(gateway.port), str(free)))
        done = subprocess.run([str(GATEWAY), "run", "-c", str(twin)], capture_output=True, text=True, timeout=60)
        assert f"unix:{path} is already in use" in done.stderr
        assert path.exists(), "the one that could not start leaves the other's socket alone"
        gateway.child.signal(signal.SIGTERM)
        assert until(lambda: not gateway.child.alive)
        assert gateway.child.status == 0
        assert not path.exists()
    (tmp_path / "second").mkdir()
    path.write_text("not a socket")
    with (
        pytest.raises(AssertionError, match="exists and is not a socket"),
        running(tmp_path / "second", f'"unix:{path}"'),
    ):
        pass
    assert path.read_text() == "not a socket"


def test_the_admin_listener_on_a_unix_socket(tmp_path: Path) -> None:
    backend = Backend()
    gateway = Gateway(tmp_path, backend)
    path = tmp_path / "admin.sock"
    gateway.path.write_text(gateway.text.replace(f'"127.0.0.1:{gateway.admin_port}"', f'"unix:{path}"'))
    gateway.child.start()
    try:
        command = [str(GATEWAY), "status", "-c", str(gateway.path)]
        assert until(lambda: subprocess.run(command, capture_output=True, timeout=60).returncode == 0), gateway.log()
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
        gateway.child.signal(signal.SIGTERM)
        assert until(lambda: not gateway.child.alive)
        assert not path.exists()
    finally:
        gateway.child.stop(10)
        backend.close()


def raw(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as one:
        one.sendall(data)
        try:
            return one.recv(65536)
        except ConnectionError:
            return b""


def seen_by(gateway: Gateway) -> str:
    return gateway.backend.seen[-1][1]["x-forwarded-for"]


def test_the_proxy_protocol_by_hand(tmp_path: Path) -> None:
    get = b"GET /x HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"
    header = b"PROXY TCP4 192.0.2.1 127.0.0.1 1 2\r\n"
    [port] = free_ports(1)
    log = tmp_path / "access.jsonl"
    with running(
        tmp_path, f"{{address: 127.0.0.1:{port}, proxy_protocol: true}}", f"access_log: {{path: {log}}}\n"
    ) as gateway:
        assert b" 200 " in raw(port, header + get)
        assert seen_by(gateway) == "192.0.2.1"
        assert raw(port, get) == b"", "no header, no answer"
        assert b" 400 " in raw(gateway.port, header + get), "a listener that did not ask"
        assert until(lambda: b"gateway_proxy_protocol_errors_total 1\n" in gateway.admin("/metrics")[1])
        assert until(lambda: log.exists() and bool(log.read_text()))
        assert json.loads(log.read_text().splitlines()[0])["peer"] == "192.0.2.1"


@pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed")
@pytest.mark.parametrize("secured", [False, pytest.param(True, marks=needs_openssl)])
@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c"])
def test_behind_haproxy(tmp_path: Path, version: str, secured: bool) -> None:
    port, front = free_ports(2)
    listen = f"{{address: 127.0.0.1:{port}, proxy_protocol: true}}"
    if secured:
        Authority(tmp_path).issue("server")
        listen = listen[:-1] + ", tls: {certificate: server.pem, key: server-key.pem}}"
    (tmp_path / "haproxy.cfg").write_text(
        "defaults\n mode tcp\n timeout connect 2s\n timeout client 9s\n timeout server 9s\n"
        f"listen all\n bind 127.0.0.1:{front}\n server gateway 127.0.0.1:{port} {version} check\n"
    )
    with running(tmp_path, listen, "http: {trusted_proxies: [127.0.0.0/8]}\n") as gateway:
        command = [str(HAPROXY), "-db", "-f", str(tmp_path / "haproxy.cfg")]
        with Running(command, front, tmp_path / "haproxy.log"):
            for source in ("127.0.0.5", "127.0.0.6"):
                with socket.create_connection(("127.0.0.1", front), 5, source_address=(source, 0)) as one:
                    line = one
                    if secured:
                        context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
                        line = context.wrap_socket(one, server_hostname="localhost")
                    line.sendall(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
                    assert b" 200 " in line.recv(65536)
                assert seen_by(gateway) == source
                assert gateway.backend.seen[-1][1]["x-forwarded-proto"] == ("https" if secured else "http")


class Running:
    """A process of somebody else's, until its port answers."""

    def __init__(self, command: list[str], port: int, log: Path) -> None:
        self.command, self.port, self.log = command, port, log

    def __enter__(self) -> Self:
        with self.log.open("w") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        assert until(self.answers), self.log.read_text()
        return self

    def answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(10)


NGINX_CONF = """\
{user}daemon off; pid nginx.pid; error_log stderr warn; worker_processes 1;
events {{}}
http {{
    access_log off;
    client_body_temp_path t; proxy_temp_path t; fastcgi_temp_path t; uwsgi_temp_path t; scgi_temp_path t;
    upstream gateway {{ server {target}; keepalive 4; }}
    server {{
        listen 127.0.0.1:{front};
        location / {{
            proxy_pass http://gateway; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_set_header X-Forwarded-For {forwarded}; proxy_set_header X-Forwarded-Proto https;
        }}
    }}
}}
"""
BOTH = "$proxy_add_x_forwarded_for"


@contextmanager
def nginx(folder: Path, target: str, forwarded: str = BOTH) -> Iterator[int]:
    [front] = free_ports(1)
    user = "user root; " if os.geteuid() == 0 else ""  # the test's folder is private
    (folder / "nginx.conf").write_text(NGINX_CONF.format(user=user, front=front, target=target, forwarded=forwarded))
    with Running(
        [str(NGINX), "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")], front, folder / "nginx.log"
    ):
        yield front


def through(front: int, source: str, forged: str) -> None:
    with socket.create_connection(("127.0.0.1", front), 5, source_address=(source, 0)) as one:
        one.sendall(
            b"GET /x HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: %s\r\nX-Forwarded-Proto: ftp\r\n\r\n" % forged.encode()
        )
        assert b" 200 " in one.recv(65536)


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
@pytest.mark.parametrize("unix", [False, True])
def test_behind_nginx(tmp_path: Path, unix: bool) -> None:
    path = tmp_path / "front.sock"
    listen = f'{{address: "unix:{path}", mode: "0666"}}' if unix else ""
    trusting = "http: {trusted_proxies: [unix]}\n" if unix else TRUSTING
    with running(tmp_path, listen, trusting) as gateway:
        target = f"unix:{path}" if unix else f"127.0.0.1:{gateway.port}"
        peer = "unknown" if unix else "127.0.0.1"
        with nginx(tmp_path, target) as front:
            for source in ("127.0.0.5", "127.0.0.6"):
                for forged in ("6.6.6.6", "6.6.6.6, 127.0.0.1", "garbage", "", "127.0.0.1"):
                    through(front, source, forged)
                    assert seen_by(gateway) == f"{source}, {peer}"
                    assert gateway.backend.seen[-1][1]["x-forwarded-proto"] == "https"
        # Past nginx, from an address that is no proxy's: its own word is nothing.
        if not unix:
            through(gateway.port, "127.0.0.9", "6.6.6.6")
            assert seen_by(gateway) == "127.0.0.9"
            assert gateway.backend.seen[-1][1]["x-forwarded-proto"] == "http"
            # Nobody is trusted after this reload, also on connections that are open.
            gateway.path.write_text(gateway.text.replace(TRUSTING, ""))
            with nginx(tmp_path, target) as front:
                through(front, "127.0.0.5", "6.6.6.6")
                assert seen_by(gateway) == "127.0.0.5, 127.0.0.1"
                assert gateway.admin("/reload", b"")[0] == 200
                through(front, "127.0.0.5", "6.6.6.6")
                assert seen_by(gateway) == "127.0.0.1"


def test_limits_by_ip_are_the_clients_behind_a_trusted_proxy(tmp_path: Path) -> None:
    with running(tmp_path, "", TRUSTING) as gateway:
        gateway.path.write_text(
            gateway.text.replace("key: client, rate: 1000/s, burst: 1000", "key: ip, rate: 1/h, burst: 3")
        )
        assert gateway.admin("/reload", b"")[0] == 200

        def ask(client: str) -> int:
            return gateway.ask("/x", b"x", {"X-Forwarded-For": client})[0]

        assert [ask("192.0.2.1") for _ in range(5)] == [200, 200, 200, 429, 429]
        assert ask("192.0.2.2") == 200
        assert ask("192.0.2.77, 192.0.2.1") == 429, "what a client writes before its proxy's word does not count"


def test_connections_of_one_address_are_bounded(tmp_path: Path) -> None:
    bounds = "http: {max_connections_per_address: 3, max_requests_per_connection: 2}\n"
    with running(tmp_path, "", bounds) as gateway:
        get = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
        held = []
        for _ in range(3):
            held.append(socket.create_connection(("127.0.0.1", gateway.port), 5))
            held[-1].sendall(get)
            assert b" 200 " in held[-1].recv(65536)
        assert raw(gateway.port, get) == b""
        with socket.create_connection(("127.0.0.1", gateway.port), 5, source_address=("127.0.0.5", 0)) as other:
            other.sendall(get)
            assert b" 200 " in other.recv(65536)
        held[0].sendall(get)
        assert b"connection: close" in held[0].recv(65536)
        assert until(lambda: b" 200 " in raw(gateway.port, get)), "there is room again"
        for each in held:
            each.close()
        for line in (
            b"gateway_refused_connections_per_address_total ",
            b"gateway_connections_at_request_limit_total 1\n",
        ):
            assert until(lambda line=line: line in gateway.admin("/metrics")[1])
        assert b"gateway_refused_connections_per_address_total 0" not in gateway.admin("/metrics")[1]
