"""What stands between the client and the origin in a run: a gateway process, and nginx in front of it if asked."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from demo.process import Child
from demo.story_config import free_ports
from loadtests.peers.processes import Process
from tests.conformance.case import MAX_BODY, MAX_HEADER_BYTES, MAX_HEADERS, MAX_REQUEST_LINE

NGINX: Final = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
NGINX_CONFIG: Final = Path(__file__).parents[2] / "nginx" / "nginx.conf"

PATIENCE: Final = 0.8  # seconds until 408, or 504 where a backend does not end its answer
MAX_RESPONSE: Final = 4096

CONFIG: Final = f"""\
version: 1
listen: 127.0.0.1:{{port}}
workers: 1
admin: {{{{listen: "127.0.0.1:{{admin}}"}}}}
http:
  max_request_line: {MAX_REQUEST_LINE}B
  max_header_bytes: {MAX_HEADER_BYTES}B
  max_headers: {MAX_HEADERS}
  max_body: {MAX_BODY}B
  header_timeout: {PATIENCE * 1000:.0f}ms
  body_timeout: {PATIENCE * 1000:.0f}ms
pools:
  p:
    backends: [{{{{url: "http://127.0.0.1:{{origin}}"}}}}]
    breaker: {{{{failures: 1000}}}}
    max_response: {MAX_RESPONSE}B
    stream_after: 10s  # a whole answer or none: so each entry says what becomes of the whole
    connections: {{{{connect_timeout: 5s}}}}
routes:
  - {{{{name: all, match: {{{{path: "/*"}}}}, pool: p, timeout: {PATIENCE * 1000:.0f}ms, retry: {{{{attempts: 1}}}}}}}}
"""


@contextlib.contextmanager
def gateway(folder: Path, origin: int) -> Iterator[int]:
    """A running gateway in front of the port `origin`; gives its port."""
    port, admin = free_ports(2)
    path = folder / "gateway.yaml"
    path.write_text(CONFIG.format(port=port, admin=admin, origin=origin))
    child = Child("gateway", [sys.executable, "-m", "gateway.cli", "run", "-c", path], folder / "gateway.log")
    child.start()
    try:
        assert child.wait_until(f"http://127.0.0.1:{admin}/readyz", 30), (folder / "gateway.log").read_text()
        yield port
        assert child.alive
        log = (folder / "gateway.log").read_text()
        assert "Traceback" not in log, log
    finally:
        child.stop(10)


@contextlib.contextmanager
def nginx(folder: Path, behind: int) -> Iterator[int]:
    """nginx with the shipped configuration, only the two addresses and the log changed; gives its port.

    `access.log` gets a line for each request that it read: the client's port, and whom it asked ("-" is nobody).
    """
    (port,) = free_ports(1)
    text = NGINX_CONFIG.read_text()
    for old, new in {"127.0.0.1:8088": port, "127.0.0.1:8080": behind}.items():
        assert text.count(old) == 1
        text = text.replace(old, f"127.0.0.1:{new}")
    assert text.count("access_log off;") == 1
    log = f"log_format corpus '$remote_port $upstream_addr'; access_log {folder}/access.log corpus;"
    text = text.replace("access_log off;", log)
    (folder / "nginx.conf").write_text(text.replace("worker_processes auto;", "worker_processes 1;"))
    command = [NGINX or "nginx", "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    process = Process("nginx", [*command, "-g", "daemon off;"], folder)
    try:
        process.wait_for_port(port)
        yield port
    finally:
        process.stop()
