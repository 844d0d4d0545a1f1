"""HAProxy as a plain proxy: one thread, keep-alive on both sides, connections shared between clients."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from loadtests.peers.base import Endpoint, Peer
from loadtests.peers.processes import Process, free_ports
from loadtests.peers.programs import find_program

CONFIG = """\
global
    nbthread 1
    maxconn 4096
defaults
    mode http
    option http-keep-alive
    http-reuse always
    timeout connect 1s
    timeout client 60s
    timeout server 60s
    timeout http-keep-alive 60s
frontend front
    bind 127.0.0.1:%(port)d
    option forwardfor
    unique-id-format %%{+X}o%%ci:%%cp_%%Ts_%%rt
    unique-id-header X-Request-Id
    default_backend origin
backend origin
    server one %(origin)s
"""


class Haproxy(Peer):
    """Plain proxy."""

    name: ClassVar[str] = "haproxy"
    does: ClassVar[str] = "plain proxy"

    def available(self) -> str | None:
        return None if find_program("haproxy") else "haproxy is not installed"

    def start(self, origin: Endpoint, store: Endpoint, workdir: Path) -> int:
        del store
        [port] = free_ports(1)
        file = workdir / "haproxy.cfg"
        file.write_text(CONFIG % {"port": port, "origin": origin})
        self.run(Process("haproxy", [find_program("haproxy") or "haproxy", "-db", "-f", str(file)], workdir), port)
        return port
