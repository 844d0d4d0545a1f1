"""What every peer is put in front of: one origin and one store, both C programs, the same for all.

The origin is an nginx worker that reads the request body and answers 200 with 64 bytes of JSON; it listens on two
loopback addresses, so that a balancer has something to choose. `Echo` answers the same from Go, over HTTP/1.1 and over
the link, for comparisons in which the link takes part. The store is a Valkey (or Redis) without persistence.
"""

from __future__ import annotations

from pathlib import Path

import redis

from loadtests.peers.base import Endpoint
from loadtests.peers.nginx import start_nginx
from loadtests.peers.processes import Process, free_ports
from loadtests.peers.programs import find_program, find_valkey

ADDRESSES = ("127.0.0.1", "127.0.0.2")  # as in the text of ORIGIN
ANSWER = b'{"predictions": [[0.01, 0.02, 0.91, 0.01, 0.05]], "model": "x"}\n'

ORIGIN = """\
    server {
        listen 127.0.0.1:%(port)d;
        listen 127.0.0.2:%(port)d;
        default_type application/json;
        keepalive_timeout 600s;
        location / { return 200 '%(answer)s'; }
    }
"""


class Origin:
    """The tiny fast backend."""

    def __init__(self, workdir: Path) -> None:
        [port] = free_ports(1)
        self.endpoint = Endpoint(port)
        self.process = start_nginx("origin", workdir, ORIGIN % {"port": port, "answer": ANSWER.decode()})
        for host in ADDRESSES:
            self.process.wait_for_port(port, host=host)

    def stop(self) -> None:
        """End it."""
        self.process.stop()


class Echo:
    """The backend that speaks the link, too: `backends/go_infer/cmd/linkecho`, on go_infer's own link code."""

    def __init__(self, workdir: Path) -> None:
        [port] = free_ports(1)
        self.endpoint = Endpoint(port)
        listen = [word for host in ADDRESSES for word in ("-listen", f"{host}:{port}")]
        command = [find_program("linkecho") or "linkecho", *listen]
        self.process = Process("linkecho", command, workdir, {"GOMAXPROCS": "1"})
        for host in ADDRESSES:
            self.process.wait_for_port(port, host=host)

    def stop(self) -> None:
        """End it."""
        self.process.stop()


class Store:
    """The Valkey that limiters ask."""

    def __init__(self, workdir: Path) -> None:
        [port] = free_ports(1)
        self.endpoint = Endpoint(port)
        command = [find_valkey() or "valkey-server", "--port", str(port), "--bind", "127.0.0.1"]
        self.process = Process("store", [*command, "--save", "", "--appendonly", "no"], workdir)
        self.process.wait_for_port(port)
        self._client = redis.Redis(port=port, socket_timeout=5)

    def time(self) -> float:
        """Its clock, in seconds."""
        seconds, micros = self._client.time()
        return float(seconds) + micros / 1e6

    def get(self, key: bytes) -> bytes | None:
        """What it has under `key`."""
        kept = self._client.get(key)
        return kept.encode() if isinstance(kept, str) else kept

    def empty(self) -> None:
        """Forgets everything."""
        self._client.flushall()

    def commands(self) -> int:
        """Commands it has carried out, without our own asking."""
        stats = self._client.info("commandstats")
        ours = ("cmdstat_info", "cmdstat_client")
        return sum(int(each["calls"]) for name, each in stats.items() if not name.startswith(ours))

    def stop(self) -> None:
        """End it."""
        self._client.close()
        self.process.stop()
