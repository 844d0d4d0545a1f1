"""nginx/nginx.conf as it is shipped, only the two addresses changed: what passes through, and what must not."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import socket
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from loadtests.peers.processes import Process, free_ports

CONFIG = Path(__file__).parents[1] / "nginx" / "nginx.conf"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


@dataclass
class Upstream:
    """Stands where the gateway would: remembers what it was sent and does what the path says."""

    port: int
    heads: list[str] = field(default_factory=list)
    connections: int = 0
    go_on: threading.Event = field(default_factory=threading.Event)

    def serve(self, connection: socket.socket) -> None:
        self.connections += 1
        received = b""
        while True:
            while b"\r\n\r\n" not in received:
                data = connection.recv(65536)
                if not data:
                    return
                received += data
            head, _, received = received.partition(b"\r\n\r\n")
            self.heads.append(head.decode())
            length = int(self.header("content-length") or 0)
            while len(received) < length:
                received += connection.recv(65536)
            received = received[length:]
            if not self.answer(head.split(b" ")[1], connection):
                return

    def answer(self, path: bytes, connection: socket.socket) -> bool:
        if path == b"/dies":
            return False
        if path == b"/events":
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            connection.sendall(b"9\r\ndata: 1\n\n\r\n")
            self.go_on.wait(5)
            connection.sendall(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")
        elif path == b"/busy":
            problem = b"Content-Type: application/problem+json\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\n{}"
            connection.sendall(b"HTTP/1.1 503 Service Unavailable\r\n" + problem)
        else:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        return True

    def header(self, name: str) -> str | None:
        """A header of the last request."""
        found = re.search(rf"^{name}: *(.*?)\r?$", self.heads[-1], re.IGNORECASE | re.MULTILINE)
        return found[1] if found else None


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    upstream: Upstream


class Handler(socketserver.BaseRequestHandler):
    server: Server

    def handle(self) -> None:
        self.server.upstream.serve(self.request)


@dataclass
class Front:
    """The running nginx and what is behind it."""

    port: int
    upstream: Upstream
    server: Server
    connections: list[http.client.HTTPConnection] = field(default_factory=list)

    def ask(
        self, path: str, headers: dict[str, str] | None = None, *, method: str = "GET", body: bytes | None = None
    ) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        self.connections.append(connection)
        connection.request(method, path, body, headers or {})
        return connection.getresponse()


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    listen, behind = free_ports(2)
    text = CONFIG.read_text()
    for old, new in {"127.0.0.1:8088": listen, "127.0.0.1:8080": behind}.items():
        assert text.count(old) == 1
        text = text.replace(old, f"127.0.0.1:{new}")
    text = text.replace("worker_processes auto;", "worker_processes 1;")
    (tmp_path / "nginx.conf").write_text(text)
    server = Server(("127.0.0.1", behind), Handler)
    server.upstream = Upstream(behind)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    command = [NGINX or "nginx", "-e", "stderr", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
    nginx = Process("nginx", [*command, "-g", "daemon off;"], tmp_path)
    try:
        nginx.wait_for_port(listen)
        front = Front(listen, server.upstream, server)
        yield front
        for connection in front.connections:
            connection.close()
    finally:
        nginx.stop()
        server.shutdown()
        server.server_close()


def test_the_shipped_file_is_valid(tmp_path: Path) -> None:
    command = [NGINX or "nginx", "-e", "stderr", "-p", str(tmp_path), "-c", str(CONFIG), "-t"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "[warn]" not in done.stderr


def test_a_request_reaches_the_gateway_over_a_kept_connection(front: Front) -> None:
    for _ in range(5):
        response = front.ask("/v1//models/a%2Fb:predict?x=1", method="POST", body=b"{}")
        assert (response.status, response.read()) == (200, b"ok")
    assert front.upstream.heads[-1].startswith("POST /v1//models/a%2Fb:predict?x=1 HTTP/1.1\r\n")
    assert front.upstream.connections == 1
    assert front.upstream.header("connection") is None


def test_what_a_client_claims_about_itself_is_replaced(front: Front) -> None:
    claims = {"X-Forwarded-For": "10.9.8.7", "Forwarded": "for=10.9.8.7", "X-Forwarded-Proto": "https"}
    front.ask("/", claims | {"X-Real-IP": "10.9.8.7"}).read()
    assert front.upstream.header("x-forwarded-for") == "127.0.0.1"
    assert front.upstream.header("x-real-ip") == "127.0.0.1"
    assert front.upstream.header("x-forwarded-proto") == "http"
    assert front.upstream.header("forwarded") is None


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_is_never_sent_twice(front: Front, method: str) -> None:
    front.ask("/ok").read()
    response = front.ask("/dies", method=method, body=b"{}" if method == "POST" else None)
    assert response.status == 502
    assert sum("/dies" in head for head in front.upstream.heads) == 1


def test_answers_stream(front: Front) -> None:
    response = front.ask("/events")
    assert response.read(9) == b"data: 1\n\n"  # the second event does not exist yet
    front.upstream.go_on.set()
    assert response.read() == b"data: 2\n\n"


def test_request_bodies_stream(front: Front) -> None:
    with socket.create_connection(("127.0.0.1", front.port), 5) as client:
        client.sendall(b"POST /slow HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nab")
        for _ in range(200):
            if front.upstream.heads:
                break
            threading.Event().wait(0.01)
        assert front.upstream.header("content-length") == "4"  # it is there before the body is whole
        client.sendall(b"cd")
        assert client.recv(100).startswith(b"HTTP/1.1 200")


def test_the_gateway_s_own_errors_pass_as_they_are(front: Front) -> None:
    response = front.ask("/busy")
    assert (response.status, response.headers["Retry-After"], response.read()) == (503, "7", b"{}")


def test_without_a_gateway_the_answer_is_a_problem_too(front: Front) -> None:
    front.server.shutdown()
    front.server.server_close()
    response = front.ask("/")
    assert response.status == 502
    assert response.headers["Content-Type"] == "application/problem+json"
    assert json.loads(response.read())["status"] == 502


def test_websocket_is_the_only_upgrade_that_passes(front: Front) -> None:
    front.ask("/", {"Upgrade": "WebSocket", "Connection": "Upgrade"}).read()
    assert (front.upstream.header("upgrade"), front.upstream.header("connection")) == ("websocket", "upgrade")
    front.ask("/", {"Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings"}).read()
    assert (front.upstream.header("upgrade"), front.upstream.header("connection")) == (None, None)
