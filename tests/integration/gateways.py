"""A real gateway process in front of scripted backends, for tests of what only processes can show."""

from __future__ import annotations

import json
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from demo.layout import GATEWAY
from demo.process import Child
from loadtests.peers.processes import free_ports

CONFIG = """\
version: 1
listen: 127.0.0.1:{port}
workers: {workers}
admin: {{listen: "127.0.0.1:{admin}"{more}}}
limits: {{per-client: {limit}}}
pools: {{p: {{connections: {{connect_timeout: 10s}}, backends: [{{url: "http://127.0.0.1:{backend}"}}]}}}}
routes:
  - {{name: all, match: {{path: "/*"}}, pool: p, limits: [per-client], timeout: 5s}}
"""

LIMIT = "{key: client, rate: 1000/s, burst: 1000}"


class Backend:
    """A threaded HTTP server that remembers what it was asked."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        self.hold = threading.Event()
        self.hold.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                outer.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                outer.hold.wait(10)
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.hold.set()
        self.server.shutdown()
        self.server.server_close()


class Gateway:
    """`extra` are further sections of the configuration, `admin` further keys of that one, each behind a comma."""

    def __init__(
        self, folder: Path, backend: Backend, extra: str = "", workers: int = 1, limit: str = LIMIT, admin: str = ""
    ) -> None:
        self.port, self.admin_port = free_ports(2)
        self.backend = backend
        self.path = folder / "gateway.yaml"
        ports = {"port": self.port, "admin": self.admin_port, "backend": backend.port}
        self.text = CONFIG.format(**ports, workers=workers, limit=limit, more=admin) + extra
        self.path.write_text(self.text)
        self.child = Child("gateway", [str(GATEWAY), "run", "-c", self.path], folder / "log")

    def log(self) -> str:
        assert self.child.log is not None
        return self.child.log.read_text()

    def start(self) -> None:
        self.child.start()
        assert self.child.wait_until(f"http://127.0.0.1:{self.admin_port}/readyz", 60), self.log()

    def ask(
        self, path: str = "/", body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        status, content, _ = self.ask_all(path, body, headers)
        return status, content

    def ask_all(
        self, path: str, body: bytes | None, headers: dict[str, str] | None
    ) -> tuple[int, bytes, dict[str, str]]:
        return fetch(f"http://127.0.0.1:{self.port}{path}", body, headers)

    def admin(self, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        return fetch(f"http://127.0.0.1:{self.admin_port}{path}", body, headers)[:2]

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.admin("/status")[1])
        return status


def fetch(url: str, body: bytes | None, headers: dict[str, str] | None) -> tuple[int, bytes, dict[str, str]]:
    request = urllib.request.Request(url, body, headers or {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read(), {k.lower(): v for k, v in answer.headers.items()}
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), {k.lower(): v for k, v in error.headers.items()}


@contextmanager
def running(folder: Path, extra: str = "", workers: int = 1, limit: str = LIMIT, admin: str = "") -> Iterator[Gateway]:
    backend = Backend()
    gateway = Gateway(folder, backend, extra, workers, limit, admin)
    try:
        gateway.start()
        yield gateway
    finally:
        gateway.child.stop(10)
        backend.close()


def descendants(pid: int) -> set[int]:
    """Living processes below `pid`."""
    out = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(p): int(pp) for p, pp in (line.split() for line in out.splitlines())}
    found = {pid}
    while True:
        more = {p for p, pp in parents.items() if pp in found} - found
        if not more:
            return found - {pid}
        found |= more
