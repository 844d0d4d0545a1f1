"""The two that are Go: net/http's own reverse proxy (`goproxy/main.go`) and Caddy, each held to one processor."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from loadtests.peers.base import Endpoint, Peer
from loadtests.peers.processes import Process, free_ports
from loadtests.peers.programs import find_program

ONE_PROCESSOR = {"GOMAXPROCS": "1"}

# Caddy keeps 32 idle connections per host unless told otherwise, and the benchmark has 64 clients.
CADDYFILE = """\
{
    admin off
    auto_https off
    persist_config off
}
http://127.0.0.1:%(port)d {
    reverse_proxy %(origin)s {
        transport http {
            keepalive_idle_conns_per_host 256
        }
    }
}
"""


class GoProxy(Peer):
    """Plain proxy."""

    name: ClassVar[str] = "go net/http"
    does: ClassVar[str] = "plain proxy"

    def available(self) -> str | None:
        return None if find_program("goproxy") else "goproxy is not built"

    def start(self, origin: Endpoint, store: Endpoint, workdir: Path) -> int:
        del store
        [port] = free_ports(1)
        program = find_program("goproxy") or "goproxy"
        command = [program, "-listen", f"127.0.0.1:{port}", "-origin", f"http://{origin}"]
        self.run(Process("goproxy", command, workdir, ONE_PROCESSOR), port)
        return port


class Caddy(Peer):
    """Plain proxy."""

    name: ClassVar[str] = "caddy"
    does: ClassVar[str] = "plain proxy"

    def available(self) -> str | None:
        return None if find_program("caddy") else "caddyserver is not installed in this environment"

    def start(self, origin: Endpoint, store: Endpoint, workdir: Path) -> int:
        del store
        [port] = free_ports(1)
        file = workdir / "Caddyfile"
        file.write_text(CADDYFILE % {"port": port, "origin": origin})
        home = {"HOME": str(workdir), "XDG_CONFIG_HOME": str(workdir), "XDG_DATA_HOME": str(workdir)}
        command = [find_program("caddy") or "caddy", "run", "--config", str(file), "--adapter", "caddyfile"]
        self.run(Process("caddy", command, workdir, {**ONE_PROCESSOR, **home}), port)
        return port
